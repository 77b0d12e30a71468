//! Answers to what is asked on the control socket.

use super::engine::{Engine, unix_now};
use super::peers::Peer;
use bgp::Prefix;
use bgp::rib::{Explanation, Fate, Freshness, PathReport, PeerId, Withheld};
use bgp::session::State;
use bgp::speaker::Speaker;
use bgp::wire::{Attributes, NextHop};
use peering::control::{Explained, PathLine, Peer as PeerLine, Request, Response, Route, Routes, Status};

/// More lines than anybody reads would hold up the sessions.
const MOST_ROUTES: usize = 20_000;

impl Engine {
    pub fn answer(&mut self, request: Request) -> Response {
        match request {
            Request::Status => Response::Status(self.status()),
            Request::Routes { within, limit } => {
                match within.map(|text| text.parse::<Prefix>()).transpose() {
                    Ok(within) => Response::Routes(self.list_routes(within, limit.min(MOST_ROUTES))),
                    Err(e) => Response::Error(e.to_string()),
                }
            }
            Request::Explain { prefix } => self.explain(&prefix),
            Request::Drain { undo } => {
                self.drained = !undo;
                // The thread that makes wishes lives as long as the engine.
                let _ = self.drain.send(self.drained);
                Response::Drained { drained: self.drained }
            }
        }
    }

    pub fn status(&self) -> Status {
        let rib = self.wish.as_ref().map(|wish| wish.rib);
        Status {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            router_id: rib.map(|r| r.router_id.to_string()).unwrap_or_default(),
            local_as: rib.map(|r| r.local_as).unwrap_or_default(),
            listening: self.listening(),
            drained: self.drained,
            restarting: self.restarting,
            started: self.started,
            configured: self.configured,
            peers: self.peers.iter().map(|(id, peer)| self.peer_line(id, peer)).collect(),
            problems: self.wish.as_ref().map(|wish| wish.problems.clone()).unwrap_or_default(),
        }
    }

    fn peer_line(&self, id: PeerId, peer: &Peer) -> PeerLine {
        let speaker = self.speaker.as_ref();
        let state = speaker.and_then(|s| s.state(id)).unwrap_or(State::Idle);
        let held = speaker.map(|s| s.rib().count(id)).unwrap_or_default();
        PeerLine {
            address: peer.addr.to_string(),
            port: peer.port,
            kind: peer.wish.kind.as_str().into(),
            range: peer.range.map(|range| range.to_string()),
            peer_as: peer.peer_as,
            state: format!("{state:?}"),
            since: peer.since.min(unix_now()),
            received: held.v4 + held.v6,
            restarts_gracefully: peer.restarts_gracefully,
            bfd: self.bfd_state(peer.addr).map(str::to_owned),
            last_error: peer.last_error.clone(),
        }
    }

    fn list_routes(&mut self, within: Option<Prefix>, limit: usize) -> Routes {
        let Some(speaker) = &self.speaker else { return Routes::default() };
        let wanted = |p: &Prefix| within.is_none_or(|w| w.covers(p));
        let mut found: Vec<Prefix> = speaker.rib().prefixes().filter(wanted).take(limit + 1).collect();
        let truncated = found.len() > limit;
        found.truncate(limit);
        let look = |p| self.look_at(p).map(|e| self.route(&e));
        let routes = found.into_iter().filter_map(look).collect();
        Routes { routes, truncated }
    }

    fn look_at(&mut self, prefix: Prefix) -> Option<Explanation> {
        self.speaker.as_mut().and_then(|s: &mut Speaker| s.explain(prefix))
    }

    /// A network that the table has, or the most specific one around an address.
    fn explain(&mut self, text: &str) -> Response {
        let prefix = match text.parse::<Prefix>().or_else(|e| text.parse().map(Prefix::host).map_err(|_| e)) {
            Ok(prefix) => prefix,
            Err(e) => return Response::Error(format!("{text:?}: {e}")),
        };
        let lengths = (0..=prefix.prefix_len()).rev();
        let found = lengths.filter_map(|len| prefix.truncate(len)).find_map(|p| self.look_at(p));
        let Some(found) = found else { return Response::Error(format!("no route to {prefix} is known")) };
        let told = found.told.iter().map(|(id, told)| (self.name(*id), told_line(told)));
        Response::Explain(Explained { told: told.collect(), route: self.route(&found) })
    }

    fn route(&self, e: &Explanation) -> Route {
        let hops = self.speaker.as_ref().map(|s| s.rib().next_hops(e.prefix)).unwrap_or_default();
        let local = e.paths.first().is_some_and(|p| p.peer == PeerId::LOCAL && p.fate == Fate::Best);
        Route {
            prefix: e.prefix.to_string(),
            next_hops: hops.iter().map(hop_line).collect(),
            kernel: if local { "local".into() } else { self.fib.report(&e.prefix, &hops) },
            paths: e.paths.iter().map(|path| self.path_line(path)).collect(),
        }
    }

    fn path_line(&self, path: &PathReport) -> PathLine {
        let a = &path.attributes;
        let is_local = path.peer == PeerId::LOCAL;
        PathLine {
            from: self.name(path.peer),
            next_hop: if is_local { "-".into() } else { hop_line(&a.next_hop) },
            as_path: a.as_path.to_string(),
            local_pref: a.local_pref,
            med: a.med,
            communities: communities(a),
            fate: fate(path.fate),
            stale: path.freshness != Freshness::Fresh,
        }
    }

    fn name(&self, id: PeerId) -> String {
        match self.peers.get(id) {
            _ if id == PeerId::LOCAL => "local".into(),
            Some(peer) => peer.addr.to_string(),
            None => format!("peer {}", id.0),
        }
    }
}

fn hop_line(hop: &NextHop) -> String {
    hop.addr.to_string()
}

fn communities(a: &Attributes) -> Vec<String> {
    let standard = a.communities.iter().map(|c| format!("{}:{}", c >> 16, c & 0xffff));
    let large = a.large.iter().map(|[a, b, c]| format!("{a}:{b}:{c}"));
    standard.chain(large).collect()
}

fn fate(fate: Fate) -> String {
    match fate {
        Fate::Best => "best".into(),
        Fate::Equal { used: true, step } => format!("used as well; another is told to peers by {step:?}"),
        Fate::Equal { used: false, step } => format!("equally good, not used; lost by {step:?}"),
        Fate::Lost(step) => format!("lost by {step:?}"),
        Fate::Unreachable => "its next hop cannot be reached".into(),
        Fate::Refused(why) => format!("refused: {why:?}"),
    }
}

fn told_line(told: &Result<std::sync::Arc<Attributes>, Withheld>) -> String {
    match told {
        Ok(a) => {
            let mut line = format!("next hop {}", a.next_hop.addr);
            for (word, text) in [("path", a.as_path.to_string()), ("communities", communities(a).join(" "))] {
                if !text.is_empty() {
                    line += &format!(", {word} {text}");
                }
            }
            line
        }
        Err(why) => format!("withheld: {why:?}"),
    }
}
