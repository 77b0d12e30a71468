//! The node's own addresses.

use super::settings::{Settings, Wanted};
use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use model::Family;
use model::node::NodeNet;
use netlink::Nl;
use policy::autodetect::{Interface, Method, detect, with_subnet};
use std::net::{IpAddr, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

/// What the node object should have. `None`: no address of the family.
pub(super) fn find(settings: &Settings, family: Family, stored: &NodeNet) -> Result<Option<IpNet>> {
    let (wanted, method) = match family {
        Family::V4 => &settings.v4,
        Family::V6 => &settings.v6,
    };
    let there = stored.family(family).address;
    match (wanted, there) {
        (Wanted::Keep | Wanted::KeepOrNone, Some(there)) => Ok(Some(there)),
        (Wanted::KeepOrNone, None) => Ok(None),
        (Wanted::Given { net, alone: false }, _) => Ok(Some(*net)),
        (Wanted::Given { net, alone: true }, _) => Ok(Some(with_subnet(net.addr(), &interfaces()?))),
        (Wanted::Detect | Wanted::Keep, _) => {
            let found = detect(method, &interfaces()?, family, &asked(method, family, stored)?);
            if found.is_none() && there.is_some() {
                tracing::warn!(%family, "no address was detected; the stored one holds");
            }
            Ok(found.or(there))
        }
    }
}

/// What a method needs beside interfaces.
fn asked(method: &Method, family: Family, stored: &NodeNet) -> Result<Vec<IpAddr>> {
    match method {
        Method::CanReach(to) => Ok(source_towards(to, family)?.into_iter().collect()),
        Method::KubernetesInternalIp => Ok(stored.addresses.clone()),
        _ => Ok(Vec::new()),
    }
}

/// The address that packets to a destination would have. Nothing is sent.
fn source_towards(to: &str, family: Family) -> Result<Option<IpAddr>> {
    let any = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
    let targets = (to, 80).to_socket_addrs().with_context(|| format!("IP autodetection: can-reach={to}"))?;
    let Some(target) = targets.into_iter().find(|target| Family::of(target.ip()) == family) else {
        return Ok(None);
    };
    let socket = UdpSocket::bind(any).context("IP autodetection: opening a socket")?;
    match socket.connect(target) {
        Ok(()) => Ok(Some(socket.local_addr().context("IP autodetection")?.ip())),
        Err(_) => Ok(None),
    }
}

/// The host's interfaces with their addresses, in the kernel's order.
pub(super) fn interfaces() -> Result<Vec<Interface>> {
    let mut nl = Nl::here(Duration::from_secs(10)).context("opening netlink")?;
    let mut links = netlink::links(&mut nl, "").context("looking at interfaces")?;
    links.sort_by_key(|link| link.index);
    let addresses = netlink::addresses(&mut nl).context("looking at addresses")?;
    let of = |index: u32| addresses.iter().filter(move |(at, _)| *at == index).map(|(_, net)| *net);
    Ok(links
        .into_iter()
        .map(|link| Interface { addresses: of(link.index).collect(), name: link.name })
        .collect())
}

/// Refuses an address that another node has.
pub(super) fn check_unique(me: &str, net: IpNet, others: &[(String, NodeNet)]) -> Result<()> {
    let has =
        |node: &NodeNet| node.family(Family::of_net(&net)).address.is_some_and(|a| a.addr() == net.addr());
    match others.iter().find(|(name, node)| name != me && has(node)) {
        Some((name, _)) => bail!(
            "node {name} already has the address {}; give this node another one (IP, IP_AUTODETECTION_METHOD), or \
             set DISABLE_NODE_IP_CHECK=true",
            net.addr()
        ),
        None => Ok(()),
    }
}
