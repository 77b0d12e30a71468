//! WireGuard: the link, its peers, a table of routes and the rule that leads there.

use super::kernel::{Done, PATIENCE, note};
use super::tunnels::{Tunnels, ensured};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::Family;
use netlink::{MarkRule, Nl, NodeRoute, Table, WireguardKey, WireguardPeer};
use policy::mtu::Mtus;
use policy::wish::Wireguard;
use policy::{Graph, Wish};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Marks WireGuard's own packets, which take the usual way.
const MARK: u32 = 0x0010_0000;

/// The wished links.
pub(super) fn ensure(nl: &mut Nl, wish: &Wish, mtus: Mtus, done: &mut Done) -> BTreeMap<Family, u32> {
    let mut there = BTreeMap::new();
    for (family, wireguard) in &wish.wireguard {
        let is_v4 = *family == Family::V4;
        let mtu = if is_v4 { mtus.wireguard } else { mtus.wireguard_v6 };
        let outcome = netlink::ensure_wireguard(nl, &wireguard.name, wireguard.inner, is_v4, mtu);
        let Some(index) = ensured(outcome, done) else { continue };
        done.step(sync_peers(wireguard));
        there.insert(*family, index);
    }
    there
}

fn sync_peers(wish: &Wireguard) -> Result<usize, netlink::Error> {
    let peers = wish.peers.iter().filter_map(|(key, peer)| {
        let endpoint = SocketAddr::new(peer.endpoint, peer.port);
        Some((decode(key)?, WireguardPeer { endpoint, allowed: peer.allowed.clone() }))
    });
    let random = crate::node::random_key();
    let outcome = netlink::sync_wireguard(&wish.name, wish.port, MARK, random, &peers.collect(), PATIENCE);
    outcome.map(|(_, changed)| usize::from(changed))
}

/// The public key of a link, in the form of a node object.
pub(crate) fn public_key(name: &str) -> Option<String> {
    let state = netlink::wireguard_state(name, PATIENCE).ok()?;
    state.public_key.map(|key| STANDARD.encode(key))
}

fn decode(key: &str) -> Option<WireguardKey> {
    STANDARD.decode(key).ok()?.try_into().ok()
}

/// The routes of peers' networks, and before them those that must not take the tunnel.
pub(super) fn sync_routes(nl: &mut Nl, tunnels: &Tunnels, wish: &Wish, done: &mut Done) {
    for family in Family::BOTH {
        let is_v4 = family == Family::V4;
        let found = wish.wireguard.get(&family).zip(tunnels.wireguard.get(&family));
        let rule = found.map(|(wireguard, index)| {
            sync_table(nl, wireguard, *index, done);
            MarkRule { is_v4, priority: wireguard.priority, mask: MARK, table: wireguard.table }
        });
        done.step(netlink::sync_rule(nl, is_v4, rule).map(usize::from));
    }
}

fn sync_table(nl: &mut Nl, wish: &Wireguard, index: u32, done: &mut Done) {
    let mut routes: BTreeMap<_, _> = wish.throw.iter().map(|net| (*net, NodeRoute::Throw)).collect();
    for net in wish.peers.values().flat_map(|peer| &peer.allowed) {
        routes.insert(*net, NodeRoute::Link(index));
    }
    match netlink::sync_routes(nl, Table::of_node(wish.table), &routes) {
        Ok(synced) => note(synced, done),
        Err(error) => done.problems.push(error.to_string()),
    }
}

pub(super) fn remove_unwished(nl: &mut Nl, graph: &Graph, done: &mut Done) {
    let config = graph.config();
    for (family, name) in [(Family::V4, &config.wireguard_name), (Family::V6, &config.wireguard_name_v6)] {
        if graph.wish().wireguard.contains_key(&family) {
            continue;
        }
        match netlink::remove_tunnel(nl, name, "wireguard") {
            Ok(false) => {}
            Ok(true) => {
                done.changed += 1;
                let table = config.route_table_min + u32::from(family == Family::V6);
                match netlink::sync_routes(nl, Table::of_node(table), &BTreeMap::new()) {
                    Ok(synced) => note(synced, done),
                    Err(error) => done.problems.push(error.to_string()),
                }
            }
            Err(error) => done.problems.push(error.to_string()),
        }
    }
}
