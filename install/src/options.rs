//! The command line.

use clap::{ArgAction, Parser, ValueEnum};
use std::path::PathBuf;

const AFTER: &str = "\
Examples:
  CALICO_IPV4POOL_CIDR=10.244.0.0/16 percale-install --dry-run   what would be done on a host of its own
  percale-install --rollback                                     the set before the last upgrade
  percale-install --take-over                                    serve Calico's pods, calico-node stays
  KUBECONFIG=FILE percale-install --take-over=all                calico-node's work too
  percale-install --give-back                                    Calico's plugins and configuration return
docs/take-over.md leads through a take-over, install/README.md has every variable's default.

Environment (Calico's names and meaning; set but empty counts as set):
  CALICO_IPV4POOL_CIDR, CALICO_IPV6POOL_CIDR   pools of a host of its own (embedded store)
  DATASTORE_TYPE            kubernetes, etcdv3 or embedded; else: etcd if named, a pod's account, pools
  ETCD_ENDPOINTS, ETCD_DISCOVERY_SRV           where etcd is
  TLS_ASSETS_DIR            etcd-ca, etcd-cert and etcd-key are copied from here
  CNI_NETWORK_CONFIG, CNI_NETWORK_CONFIG_FILE  a configuration with Calico's __PLACEHOLDERS__; the file wins
  CNI_CONF_NAME             its file name [10-percale.conflist]
  CNI_OLD_CONF_NAME         a configuration that goes once ours is there, and comes back at the end
  CNI_NET_DIR               the configuration directory as the host names it
  CNI_MTU                   the pods' MTU; unset: the daemon's
  UPDATE_CNI_BINARIES       false: plugins that are there stay
  SKIP_CNI_BINARIES         names of plugins that are not touched, with commas
  SLEEP                     true is --watch
  KUBERNETES_SERVICE_HOST, _PORT, _PROTOCOL, SKIP_TLS_VERIFY   the API server of the kubeconfig
  KUBERNETES_NODE_NAME      this node [the host's name]
  LOG_LEVEL, LOG_FILE_PATH, LOG_FILE_MAX_SIZE, _MAX_AGE, _MAX_COUNT   the plugin's log
and Percale's own:
  PUBLISH_CONF              daemon: the configuration waits for percaled; installer: written last
  PERCALE_CNI_SERVICE_ACCOUNT   NAMESPACE/NAME, whose token is asked of the API server and renewed
  KUBECONFIG                who asks the API server about policies and labels the node, by hand

Exit status: 0 done, 1 failed, 64 bad usage. After a failure the files that worked before still do.";

/// Puts Percale's plugins and network configuration on this node.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "percale-install", version, after_help = AFTER)]
pub struct Options {
    /// Where plugins go [default: /host/opt/cni/bin where it exists, else /opt/cni/bin]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Where the network configuration goes [default: /host/etc/cni/net.d where it exists, else /etc/cni/net.d]
    #[arg(long, value_name = "DIR")]
    pub conf_dir: Option<PathBuf>,
    /// Where percale, percale-ipam and CNI plugins are taken from [default: this program's directory]
    #[arg(long, value_name = "DIR")]
    pub source_dir: Option<PathBuf>,
    /// What is installed is recorded here, with the set before [default: /var/lib/percale]
    #[arg(long, value_name = "DIR", env = "PERCALE_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// The node's root, where the runtime's settings are read [default: /host where it has an etc, else /]
    #[arg(long, value_name = "DIR")]
    pub host_root: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long, action = ArgAction::SetTrue)]
    pub dry_run: bool,
    /// How --dry-run prints
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Stay: renew tokens, follow certificates, repair what others overwrite
    #[arg(long, action = ArgAction::SetTrue)]
    pub watch: bool,
    /// Remove what was installed, the network configuration first; what others had comes back
    #[arg(long, action = ArgAction::SetTrue, group = "mode")]
    pub uninstall: bool,
    /// Return to the set before
    #[arg(long, action = ArgAction::SetTrue, group = "mode")]
    pub rollback: bool,
    /// Serve Calico's pods on this node in place of Calico's plugins
    #[arg(long, value_enum, value_name = "STAGE", num_args = 0..=1, require_equals = true,
          default_missing_value = "plugin", group = "mode")]
    pub take_over: Option<Stage>,
    /// Give the node back to Calico: its plugins and its network configuration
    #[arg(long, action = ArgAction::SetTrue, group = "mode")]
    pub give_back: bool,
}

/// How much of Calico is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Plugin and IPAM; calico-node keeps running
    Plugin,
    /// Calico-node's work as well: routes and rules; refused while policies exist that cannot be enforced
    All,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Install,
    Uninstall,
    Rollback,
    TakeOver(Stage),
    GiveBack,
}

impl Options {
    pub fn mode(&self) -> Mode {
        match (self.uninstall, self.rollback, self.take_over, self.give_back) {
            (true, ..) => Mode::Uninstall,
            (_, true, ..) => Mode::Rollback,
            (.., Some(stage), _) => Mode::TakeOver(stage),
            (.., true) => Mode::GiveBack,
            _ => Mode::Install,
        }
    }
}
