//! What the kernel alone needs to delete a pod's veth.

use super::calls::ms;
use crate::bed::Bed;
use crate::netns::must;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};
use std::time::Instant;

const RTM_DELLINK: u16 = 17;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;

/// Makes a veth whose peer is up in a namespace, with an address and a route to it, and answers
/// the milliseconds that RTM_DELLINK takes.
pub fn bare_dellink(bed: &Bed) -> f64 {
    let ns = bed.netns("bare");
    let peer = ["peer", "name", "eth0", "netns", ns.name()];
    must(bed.host.command("ip").args(["link", "add", "bare0", "type", "veth"]).args(peer));
    must(ns.command("ip").args(["addr", "add", "10.99.0.1/32", "dev", "eth0"]));
    must(ns.command("ip").args(["link", "set", "eth0", "up"]));
    must(bed.host.command("ip").args(["link", "set", "bare0", "up"]));
    must(bed.host.command("ip").args(["route", "add", "10.99.0.1/32", "dev", "bare0"]));
    let link = &bed.host.ip(&["link", "show", "bare0"])[0];
    let index = i32::try_from(link["ifindex"].as_i64().expect("a link has an index")).expect("it fits");
    bed.host.run(|| delete(index))
}

fn delete(index: i32) -> f64 {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None).expect("a netlink socket");
    let kernel = SocketAddrNetlink::new(0, 0);
    let begun = Instant::now();
    sendto(&socket, &message(index), SendFlags::empty(), &kernel).expect("the kernel takes a message");
    let mut buffer = [0u8; 4096];
    let (len, _) = recv(&socket, &mut buffer, RecvFlags::empty()).expect("the kernel answers");
    let took = begun.elapsed();
    let error = i32::from_ne_bytes(buffer[16..20].try_into().expect("four bytes"));
    assert!(len >= 20 && error == 0, "RTM_DELLINK: error {error}");
    ms(took)
}

/// `struct nlmsghdr` and `struct ifinfomsg` of linux/netlink.h and linux/rtnetlink.h.
fn message(index: i32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend(32u32.to_ne_bytes());
    bytes.extend(RTM_DELLINK.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([0; 4]);
    bytes.extend(index.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}
