//! `bgp` and `node`: what the daemon's BGP speaker knows and does, asked on its socket, and how the daemon is.

mod args;

pub use args::{BgpCommand, NodeCommand};

use crate::cli::Output;
use crate::daemon;
use crate::outcome::{Outcome, say, say_json};
use crate::table::Table;
use anyhow::{Context as _, Result, bail};
use args::{SocketArgs, StatusArgs};
use model::time;
use peering::control::{Daemon, Explained, Peer, Request, Response, Route, Routes, Status};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The daemon answers within ten seconds, or says that it is busy.
const PATIENCE: Duration = Duration::from_secs(15);

pub fn bgp(command: &BgpCommand) -> Result<Outcome> {
    match command {
        BgpCommand::Peers(args) => {
            let status = status(&args.socket)?;
            show(args.output.output, &status.peers, || peers_table(&status.peers))
        }
        BgpCommand::Routes(args) => {
            let request = Request::Routes { within: args.within.clone(), limit: args.limit };
            let Response::Routes(routes) = ask(&args.socket, &request)? else { bail!(UNEXPECTED) };
            show(args.output.output, &routes, || routes_table(&routes))
        }
        BgpCommand::Explain(args) => {
            let request = Request::Explain { prefix: args.prefix.clone() };
            let Response::Explain(found) = ask(&args.socket, &request)? else { bail!(UNEXPECTED) };
            show(args.output.output, &found, || explanation(&found))
        }
    }
}

pub fn node(command: &NodeCommand) -> Result<Outcome> {
    match command {
        NodeCommand::Status(args) => node_status(args),
        NodeCommand::Drain(args) => {
            let answer = ask(&args.socket, &Request::Drain { undo: args.undo })?;
            let Response::Drained { drained } = answer else { bail!(UNEXPECTED) };
            say(if drained {
                "routes are withdrawn; percalectl node drain --undo announces them again"
            } else {
                "routes are announced"
            })?;
            Ok(Outcome::Done)
        }
    }
}

/// The daemon as a whole, and its speaker where it has one (it has none without BGP).
fn node_status(args: &StatusArgs) -> Result<Outcome> {
    let daemon = daemon::ask(args.health_addr);
    let bgp = match &daemon {
        Ok(_) if !args.socket.bgp_socket.exists() => None,
        _ => Some(status(&args.socket)?),
    };
    let (daemon, unasked) = match daemon {
        Ok(daemon) => (Some(daemon), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    show(args.output.output, &status_json(daemon.as_ref(), bgp.as_ref())?, || {
        let daemon = daemon.as_ref().map(daemon::text).or(unasked.map(|why| format!("percaled: {why}\n")));
        let bgp = bgp.as_ref().map_or_else(|| "BGP: off on this node\n".to_owned(), status_text);
        daemon.unwrap_or_default() + &bgp
    })?;
    let daemon_is_well =
        daemon.is_none_or(|d| d.hung.is_empty() && d.not_ready.is_empty() && d.warnings.is_empty());
    let bgp_is_well = bgp.is_none_or(|s| s.problems.is_empty() && s.peers.iter().all(is_up));
    Ok(if daemon_is_well && bgp_is_well { Outcome::Done } else { Outcome::Found })
}

/// What the speaker says, with the daemon as one more member.
fn status_json(daemon: Option<&Daemon>, bgp: Option<&Status>) -> Result<serde_json::Value> {
    let mut all = serde_json::Map::new();
    if let Some(bgp) = bgp
        && let serde_json::Value::Object(told) = serde_json::to_value(bgp)?
    {
        all = told;
    }
    all.insert("daemon".into(), serde_json::to_value(daemon)?);
    Ok(all.into())
}

const UNEXPECTED: &str = "the daemon answered something else; is it of another version?";

fn status(socket: &SocketArgs) -> Result<Status> {
    match ask(socket, &Request::Status)? {
        Response::Status(status) => Ok(status),
        _ => bail!(UNEXPECTED),
    }
}

fn ask(socket: &SocketArgs, request: &Request) -> Result<Response> {
    let path = &socket.bgp_socket;
    let asking = || format!("asking percaled on {}; does it run?", path.display());
    let mut stream = UnixStream::connect(path).with_context(asking)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).with_context(asking)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).with_context(asking)?;
    match serde_json::from_str(&answer).context(UNEXPECTED)? {
        Response::Error(why) => bail!("{why}"),
        answer => Ok(answer),
    }
}

fn show(output: Output, value: &impl serde::Serialize, table: impl FnOnce() -> String) -> Result<Outcome> {
    match output {
        Output::Json => say_json(&serde_json::to_value(value)?)?,
        Output::Table => say(table().trim_end())?,
    }
    Ok(Outcome::Done)
}

fn is_up(peer: &Peer) -> bool {
    peer.state == "Established"
}

fn status_text(s: &Status) -> String {
    let mut text = format!(
        "node {}, AS {}, router id {}, listening on {}\n",
        s.node,
        s.local_as,
        if s.router_id.is_empty() { "-" } else { &s.router_id },
        if s.listening.is_empty() { "nothing".to_owned() } else { s.listening.join(", ") },
    );
    if s.drained {
        text += "drained: no route is announced (percalectl node drain --undo)\n";
    }
    if s.restarting {
        text += "restarting: the peers' routes are awaited\n";
    }
    text += &peers_table(&s.peers);
    for (object, what) in &s.problems {
        text += &format!("wrong: {object}: {what}\n");
    }
    text
}

fn peers_table(peers: &[Peer]) -> String {
    let mut table = Table::new(["PEER", "TYPE", "AS", "STATE", "SINCE", "RECEIVED", "BFD", "LAST ERROR"]);
    for p in peers {
        let asn = p.peer_as.map(|asn| asn.to_string()).unwrap_or_default();
        let (bfd, error) = (p.bfd.clone().unwrap_or_default(), p.last_error.clone().unwrap_or_default());
        let since = time::rfc3339(p.since.saturating_mul(1_000_000_000));
        table.row([
            p.address.clone(),
            p.kind.clone(),
            asn,
            p.state.clone(),
            since,
            p.received.to_string(),
            bfd,
            error,
        ]);
    }
    table.render()
}

fn routes_table(routes: &Routes) -> String {
    let mut table = Table::new(["NETWORK", "NEXT HOPS", "FROM", "AS PATH", "KERNEL"]);
    for r in &routes.routes {
        let best = r.paths.first();
        let (from, path) = best.map(|p| (p.from.clone(), p.as_path.clone())).unwrap_or_default();
        table.row([r.prefix.clone(), r.next_hops.join(" "), from, path, r.kernel.clone()]);
    }
    let more = if routes.truncated { "there are more: --limit, or name a network\n" } else { "" };
    table.render() + more
}

fn explanation(e: &Explained) -> String {
    let Route { prefix, kernel, paths, .. } = &e.route;
    let mut table = Table::new(["FROM", "NEXT HOP", "AS PATH", "PREF", "MED", "COMMUNITIES", "OUTCOME"]);
    let number = |n: Option<u32>| n.map(|n| n.to_string()).unwrap_or_default();
    for p in paths {
        let fate = if p.stale { format!("{} (stale)", p.fate) } else { p.fate.clone() };
        let (pref, med) = (number(p.local_pref), number(p.med));
        table.row([
            p.from.clone(),
            p.next_hop.clone(),
            p.as_path.clone(),
            pref,
            med,
            p.communities.join(" "),
            fate,
        ]);
    }
    let mut told = Table::new(["PEER", "IS TOLD"]);
    e.told.iter().for_each(|(peer, what)| told.row([peer.clone(), what.clone()]));
    format!("{prefix}  kernel: {kernel}\n\n{}\n{}", table.render(), told.render())
}
