//! The command line: options, commands, and help that shows each at work.

use crate::bgp::{BgpCommand, NodeCommand};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

#[derive(Parser, Debug)]
#[command(
    name = "percalectl",
    version,
    about = "Looks at, checks and repairs what Percale keeps",
    long_about = "Looks at, checks and repairs what Percale keeps: address pools and leases, the store, this host.\n\
                  Exit status: 0 done, 1 failed, 2 found something wrong, 64 bad usage.",
    after_help = "Examples:\n  \
                  percalectl doctor                    is this host fit, and if not, what cures it\n  \
                  percalectl ipam show                 pools and how full they are\n  \
                  percalectl ipam check --fix          find leaked addresses and free them\n  \
                  percalectl apply -f pools.yaml       create or change pools\n  \
                  percalectl get ippools -o yaml       look at pools",
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Command,
}

/// Where things are. Every command takes these.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Where things are")]
pub struct Options {
    /// Kind of store: embedded, etcdv3 or kubernetes [env: CALICO_DATASTORE_TYPE, DATASTORE_TYPE]
    #[arg(long, global = true, value_name = "TYPE")]
    pub datastore_type: Option<StoreType>,
    /// calicoctl's configuration file [default: /etc/calico/calicoctl.cfg, if it is there]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the embedded store [env: PERCALE_DATASTORE_PATH] [default: STATE_DIR/store]
    #[arg(long, global = true, value_name = "DIR")]
    pub datastore_path: Option<PathBuf>,
    /// State directory: journal, nodename [env: PERCALE_STATE_DIR] [default: the parent of --datastore-path, else /var/lib/percale]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The host's IPAM lock [env: PERCALE_IPAM_LOCK_FILE] [default: /run/percale/ipam.lock]
    #[arg(long, global = true, value_name = "FILE")]
    pub ipam_lock_file: Option<PathBuf>,
    /// Directory of the attachment locks [default: /run/percale/attachments]
    #[arg(long, global = true, value_name = "DIR")]
    pub attachment_dir: Option<PathBuf>,
    /// Kubernetes client configuration, for the kubernetes store [env: CALICO_KUBECONFIG, KUBECONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig [env: CALICO_K8S_CURRENT_CONTEXT, K8S_CURRENT_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
}

/// Kinds of store that a configuration can name.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreType {
    Embedded,
    Etcdv3,
    Kubernetes,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Addresses: pools, blocks, leases
    #[command(subcommand)]
    Ipam(IpamCommand),
    /// The store as a whole
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print resources
    #[command(
        after_help = "Examples:\n  percalectl get ippools\n  percalectl get ippool 10-91-0-0-16 -o yaml\n  \
                            percalectl get nodes -o wide\n\n\
                            Kinds: IPPool, Node, IPReservation, ClusterInformation, IPAMConfiguration, BlockAffinity,\n  \
                            BGPConfiguration, BGPPeer, BGPFilter, FelixConfiguration, KubeControllersConfiguration,\n  \
                            WorkloadEndpoint, Profile, HostEndpoint, NetworkSet, GlobalNetworkSet, NetworkPolicy,\n  \
                            GlobalNetworkPolicy (policies are stored; this build enforces none)"
    )]
    Get(GetArgs),
    /// Create resources; fails where one exists
    #[command(
        after_help = "Examples:\n  percalectl create -f pool.yaml\n  percalectl create --skip-exists -f pool.yaml\n\n\
                            pool.yaml:\n  apiVersion: projectcalico.org/v3\n  kind: IPPool\n  metadata:\n    name: pods\n  \
                            spec:\n    cidr: 10.91.0.0/16\n    blockSize: 26\n    natOutgoing: true"
    )]
    Create(CreateArgs),
    /// Create resources, or change them to what the file says
    #[command(
        after_help = "Examples:\n  percalectl apply -f pools.yaml\n  percalectl get ippools -o yaml | percalectl apply -f -\n\n\
                            All documents of a file are written in one commit: all or none."
    )]
    Apply(FileArgs),
    /// Change resources to what the file says; fails where one is missing
    #[command(after_help = "Example:\n  percalectl replace -f pool.yaml")]
    Replace(FileArgs),
    /// Change some members of a resource
    #[command(
        after_help = "Examples:\n  percalectl patch ippool pods -p '{\"spec\":{\"disabled\":true}}'\n  \
                            percalectl patch node n1 -p '{\"metadata\":{\"labels\":{\"rack\":\"r1\"}}}'\n  \
                            percalectl patch node n1 -p '{\"metadata\":{\"labels\":{\"rack\":null}}}'   null removes a member"
    )]
    Patch(PatchArgs),
    /// Delete resources
    #[command(
        after_help = "Examples:\n  percalectl delete ippool pods\n  percalectl delete -f pools.yaml\n\n\
                            Deleting a pool frees its empty blocks; addresses in use stay with their pods until these go."
    )]
    Delete(DeleteArgs),
    /// BGP: sessions, routes, and why a route was chosen
    #[command(subcommand)]
    Bgp(BgpCommand),
    /// This node: its BGP state; withdraw its routes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Examine this host: sysctls, firewalls, network managers, plugins, configuration, store
    #[command(after_help = "Examples:\n  percalectl doctor\n  percalectl doctor -o json\n  \
                            percalectl doctor --host-root /host      in a container that has the host's / there\n\n\
                            Each finding says what is wrong, why it matters, and the command that cures it.\n\
                            Exit status 2 when something is wrong; notes alone are 0.")]
    Doctor(DoctorArgs),
    /// Print versions
    #[command(after_help = "Example:\n  percalectl version -o json")]
    Version(OutputArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  percalectl completion bash > /etc/bash_completion.d/percalectl")]
    Completion { shell: clap_complete::Shell },
}

#[derive(Subcommand, Debug)]
pub enum IpamCommand {
    /// Pools, blocks and use; or who holds one address
    #[command(after_help = "Examples:\n  percalectl ipam show\n  percalectl ipam show --show-blocks\n  \
                            percalectl ipam show --ip 10.91.0.5\n  percalectl ipam show --network mynet -o json")]
    Show(ShowArgs),
    /// Find leaked and doubled addresses, orphan handles and affinities; repair them on demand
    #[command(
        after_help = "Examples:\n  percalectl ipam check\n  percalectl ipam check --fix\n  percalectl ipam check -o json\n\n\
                            An address is leaked when neither its namespace nor its host link lives.\n\
                            --fix frees what is still as it was seen, finishes releases that wait in the journal, and\n\
                            removes host links without a lease. Attachments that a plugin works on are left alone.\n\
                            Exit status 2 when something is (still) wrong."
    )]
    Check(CheckArgs),
    /// Free an address or all addresses of a handle
    #[command(
        after_help = "Examples:\n  percalectl ipam release --ip 10.91.0.5\n  percalectl ipam release --handle mynet.4f1c\n\n\
                            The pod that uses the address is not told: release only what nobody uses."
    )]
    Release(ReleaseArgs),
    /// Show or change settings of the whole IPAM
    #[command(
        after_help = "Examples:\n  percalectl ipam configure\n  percalectl ipam configure --strictaffinity true\n  \
                            percalectl ipam configure --strictaffinity true --max-blocks-per-host 4"
    )]
    Configure(ConfigureArgs),
}

#[derive(Subcommand, Debug)]
pub enum StoreCommand {
    /// Print everything in the store as JSON
    #[command(after_help = "Example:\n  percalectl store dump > backup.json\n\n\
                            Of a damaged store all that is readable is printed, what is not is told on stderr,\n\
                            and the exit status is 2. Of a cluster's store what is Calico's and ours is printed.")]
    Dump,
    /// Replace the content of the store by a dump
    #[command(
        after_help = "Examples:\n  percalectl store load backup.json\n  percalectl store load --force - < backup.json\n  \
                            echo '{\"entries\":[]}' | percalectl store load -      an empty store\n\n\
                            A store that has content, or is damaged, is replaced only with --force."
    )]
    Load(LoadArgs),
}

/// `-o` of commands that print a table or JSON.
#[derive(Args, Debug)]
pub struct OutputArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Json,
    Table,
}

#[derive(Args, Debug)]
pub struct ShowArgs {
    /// List the blocks too
    #[arg(long)]
    pub show_blocks: bool,
    /// Who holds this address
    #[arg(long, value_name = "ADDRESS", value_parser = parse_ip)]
    pub ip: Option<IpAddr>,
    #[command(flatten)]
    pub scope: ScopeArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Leases live in the cluster's scope or, with host-local's keys, in their network's.
#[derive(Args, Debug)]
pub struct ScopeArgs {
    /// Only the leases scoped to this network [default: all]
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
}

#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Repair what is found
    #[arg(long)]
    pub fix: bool,
    #[command(flatten)]
    pub scope: ScopeArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["ip", "handle"]))]
pub struct ReleaseArgs {
    /// Address to free; may be given several times
    #[arg(long, value_name = "ADDRESS", value_parser = parse_ip)]
    pub ip: Vec<IpAddr>,
    /// Handle whose addresses are freed: NETWORK.CONTAINER-ID
    #[arg(long, value_name = "HANDLE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub handle: Option<String>,
    #[command(flatten)]
    pub scope: ScopeArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct ConfigureArgs {
    /// Never take addresses from another host's block
    #[arg(long, alias = "strict-affinity", value_name = "BOOL", action = ArgAction::Set)]
    pub strictaffinity: Option<bool>,
    /// Blocks of one family that a host may have; 0 is no limit. Needs strict affinity
    #[arg(long, value_name = "N")]
    pub max_blocks_per_host: Option<u32>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct LoadArgs {
    /// File to read, - for standard input
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// Replace existing content
    #[arg(long)]
    pub force: bool,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum GetOutput {
    Table,
    Wide,
    Yaml,
    Json,
}

#[derive(Args, Debug)]
pub struct GetArgs {
    /// Kind of resource
    #[arg(required_unless_present = "filename", conflicts_with = "filename")]
    pub kind: Option<String>,
    /// Names; none means all
    #[arg(conflicts_with = "filename")]
    pub names: Vec<String>,
    /// Namespace, of kinds that have one [default: default]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "names"])]
    pub all_namespaces: bool,
    /// Resources that this file names, - for standard input
    #[arg(short, long, value_name = "FILE|-")]
    pub filename: Option<PathBuf>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = GetOutput::Table)]
    pub output: GetOutput,
}

#[derive(Args, Debug)]
pub struct FileArgs {
    /// YAML documents or JSON, - for standard input; may be given several times
    #[arg(short, long, value_name = "FILE|-", required = true)]
    pub filename: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub struct CreateArgs {
    #[command(flatten)]
    pub files: FileArgs,
    /// Leave existing resources as they are
    #[arg(long)]
    pub skip_exists: bool,
}

#[derive(Args, Debug)]
pub struct PatchArgs {
    /// Kind of resource
    pub kind: String,
    /// Its name
    pub name: String,
    /// Its namespace, of kinds that have one [default: default]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Members to change, as YAML or JSON (a merge patch, RFC 7386)
    #[arg(short, long, value_name = "PATCH")]
    pub patch: String,
}

#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Kind of resource
    #[arg(required_unless_present = "filename", conflicts_with = "filename", requires = "names")]
    pub kind: Option<String>,
    /// Names
    #[arg(conflicts_with = "filename")]
    pub names: Vec<String>,
    /// Namespace, of kinds that have one [default: default]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Resources that this file names, - for standard input
    #[arg(short, long, value_name = "FILE|-")]
    pub filename: Option<PathBuf>,
    /// Missing resources are no error
    #[arg(long)]
    pub skip_not_exists: bool,
}

#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// The examined host's root directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub host_root: PathBuf,
    /// Directories of plugins [env: CNI_PATH] [default: the container runtime's, else the usual places]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Vec<PathBuf>,
    /// Directory of network configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub conf_dir: PathBuf,
    /// Where the daemon answers (its --health-addr)
    #[arg(long, value_name = "ADDRESS", default_value_t = crate::daemon::HEALTH)]
    pub health_addr: SocketAddr,
    #[command(flatten)]
    pub output: OutputArgs,
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    model::ip::parse_ip(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let mut children = command.get_subcommands().peekable();
            if children.peek().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("percalectl "), "{path} has no example");
            }
            children.for_each(|child| walk(child, &path));
        }
        walk(&Cli::command(), "");
    }
}
