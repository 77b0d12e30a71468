//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// What the command line says; [`crate::config::Config`] adds the environment and the defaults.
#[derive(Parser, Debug, Clone, Default)]
#[command(
    name = "percaled",
    version,
    about = "Percale's host daemon: serves the CNI plugin, routes pods between nodes",
    long_about = "Percale's host daemon: serves the CNI plugin, routes pods between nodes.\n\
                  It runs in the foreground and logs to stderr. SIGTERM is a restart: pods keep their network.",
    after_help = "Examples:\n  \
                  percaled                                             the store that the environment names, else this host's\n  \
                  percaled --datastore-type embedded --health-addr ''  without a health endpoint\n  \
                  curl -i http://127.0.0.1:9099/readiness              204 when pods can be served, else 503 and why\n\n\
                  The variables of Calico's node (FELIX_*, CALICO_*, IP*, ETCD_*, KUBECONFIG) have Calico's meaning."
)]
pub struct Args {
    /// Felix's configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// State directory: embedded store, journal, MTU, node name [env: PERCALE_STATE_DIR] [default: /var/lib/percale]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The host's IPAM lock [env: PERCALE_IPAM_LOCK_FILE] [default: /run/percale/ipam.lock]
    #[arg(long, value_name = "FILE")]
    pub ipam_lock_file: Option<PathBuf>,
    /// Directory of the attachment locks [default: /run/percale/attachments]
    #[arg(long, value_name = "DIR")]
    pub attachment_dir: Option<PathBuf>,
    /// Name of this node [env: NODENAME, CALICO_NODENAME, FELIX_FELIXHOSTNAME] [default: the nodename file, else the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Kind of store: embedded, etcdv3 or kubernetes [env: CALICO_DATASTORE_TYPE, DATASTORE_TYPE, FELIX_DATASTORETYPE]
    #[arg(long, value_name = "TYPE")]
    pub datastore_type: Option<String>,
    /// Directory of the embedded store [env: PERCALE_DATASTORE_PATH] [default: STATE_DIR/store]
    #[arg(long, value_name = "DIR")]
    pub datastore_path: Option<PathBuf>,
    /// Socket on which the plugin asks [env: PERCALE_SOCKET] [default: /run/percale/percaled.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where /liveness, /readiness and /status are answered; empty: nowhere [env: PERCALE_HEALTH_ADDR] [default: 127.0.0.1:9099]
    #[arg(long, value_name = "ADDRESS")]
    pub health_addr: Option<String>,
    /// Where /metrics is answered; empty: nowhere [env: PERCALE_METRICS_ADDR] [default: :9091]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_addr: Option<String>,
    /// Socket of the container runtime's CRI, asked before forgotten addresses are freed [env: PERCALE_CRI_SOCKET, CONTAINER_RUNTIME_ENDPOINT] [default: the first of the usual places]
    #[arg(long, value_name = "PATH")]
    pub cri_socket: Option<PathBuf>,
    /// Seconds between two looks for addresses of pods that are gone and were never deleted; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub gc_interval: u64,
    /// Seconds that a pod must have been gone for; longer than any CNI call may last
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub gc_grace: u64,
}
