//! Options of `bgp` and `node`.

use crate::cli::OutputArgs;
use clap::{Args, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
pub enum BgpCommand {
    /// Sessions: state, since when, routes received, why the last one ended
    #[command(after_help = "Examples:\n  percalectl bgp peers\n  percalectl bgp peers -o json")]
    Peers(PeersArgs),
    /// Routes: where packets go, and what the kernel has
    #[command(after_help = "Examples:\n  percalectl bgp routes\n  percalectl bgp routes 10.91.0.0/16")]
    Routes(RoutesArgs),
    /// Why a network or an address goes where it goes, and who is told
    #[command(
        after_help = "Examples:\n  percalectl bgp explain 10.91.3.64/26\n  percalectl bgp explain 10.91.3.70"
    )]
    Explain(ExplainArgs),
}

#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// This node: its daemon, BGP sessions, what is wrong with settings and resources
    #[command(after_help = "Examples:\n  percalectl node status\n  percalectl node status -o json\n\n\
                            Exit status 2 when the daemon is not ready, a session is down, or a resource is wrong.")]
    Status(StatusArgs),
    /// Withdraw this node's routes from all BGP peers; sessions and learnt routes stay
    #[command(after_help = "Examples:\n  percalectl node drain\n  percalectl node drain --undo\n\n\
                            A restart of the daemon ends it as well.")]
    Drain(DrainArgs),
}

/// Where the daemon is asked.
#[derive(Args, Debug)]
pub struct SocketArgs {
    /// Socket of the daemon's BGP speaker
    #[arg(long, value_name = "PATH", default_value = "/run/percale/bgp.sock", env = "PERCALE_BGP_SOCKET")]
    pub bgp_socket: PathBuf,
}

#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Where the daemon answers (its --health-addr)
    #[arg(long, value_name = "ADDRESS", default_value_t = crate::daemon::HEALTH)]
    pub health_addr: SocketAddr,
    #[command(flatten)]
    pub socket: SocketArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct PeersArgs {
    #[command(flatten)]
    pub socket: SocketArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct RoutesArgs {
    /// Only routes in this network
    #[arg(value_name = "NETWORK")]
    pub within: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub limit: usize,
    #[command(flatten)]
    pub socket: SocketArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// Network or address
    #[arg(value_name = "PREFIX")]
    pub prefix: String,
    #[command(flatten)]
    pub socket: SocketArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct DrainArgs {
    /// Announce the routes again
    #[arg(long)]
    pub undo: bool,
    #[command(flatten)]
    pub socket: SocketArgs,
}
