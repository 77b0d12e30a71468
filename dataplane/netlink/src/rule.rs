//! Routing rules: packets without a mark bit look into a table of ours first.

use crate::reply::Reply;
use crate::request::{AttrWriter, Request};
use crate::{Error, Nl};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rustix::io::Errno;

/// Attribute numbers of linux/fib_rules.h.
mod fra {
    pub const PRIORITY: u16 = 6;
    pub const FWMARK: u16 = 10;
    pub const TABLE: u16 = 15;
    pub const FWMASK: u16 = 16;
    pub const PROTOCOL: u16 = 21;
}
const FR_ACT_TO_TBL: u8 = 1;

/// `fwmark 0/MASK lookup TABLE` at a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkRule {
    pub is_v4: bool,
    pub priority: u32,
    pub mask: u32,
    pub table: u32,
}

/// Makes this the only rule of ours (by protocol) of its family; with `None`, leaves none. True when
/// that changed something.
///
/// # Errors
/// The kernel's.
pub fn sync_rule(nl: &mut Nl, is_v4: bool, wish: Option<MarkRule>) -> Result<bool, Error> {
    let family = if is_v4 { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let make = |flags| {
        let mut header = [0; 12];
        header[0] = family;
        Request::raw("list rules", "of the daemon", libc::RTM_GETRULE, flags, &header)
    };
    let seen = nl.dump(make, |reply| parse(&reply, is_v4))?;
    let mut batch = Vec::new();
    if let Some(wish) = wish.filter(|wish| !seen.contains(wish)) {
        batch.push(request(wish, libc::RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL));
    }
    batch.extend(
        seen.iter().filter(|rule| Some(**rule) != wish).map(|rule| request(*rule, libc::RTM_DELRULE, 0)),
    );
    for outcome in nl.batch(&batch)? {
        match outcome.errno() {
            Some(Errno::NOENT | Errno::EXIST) => {}
            _ => drop(outcome.ok()?),
        }
    }
    Ok(!batch.is_empty())
}

/// `struct fib_rule_hdr` and its attributes; only rules of ours.
fn parse(reply: &Reply, is_v4: bool) -> Option<MarkRule> {
    let (header, attrs) = reply.split(12).filter(|_| reply.kind == libc::RTM_NEWRULE)?;
    let ours = attrs.get(fra::PROTOCOL) == Some(&[crate::NODE_PROTOCOL]);
    ours.then(|| MarkRule {
        is_v4,
        priority: attrs.u32(fra::PRIORITY).unwrap_or(0),
        mask: attrs.u32(fra::FWMASK).unwrap_or(0),
        table: attrs.u32(fra::TABLE).unwrap_or(header[4].into()),
    })
}

fn request(rule: MarkRule, kind: u16, flags: u16) -> Request {
    let family = if rule.is_v4 { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let header = [family, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
    let body = AttrWriter::with_header(&header)
        .put(fra::PRIORITY, &rule.priority.to_ne_bytes())
        .put(fra::FWMARK, &0u32.to_ne_bytes())
        .put(fra::FWMASK, &rule.mask.to_ne_bytes())
        .put(fra::TABLE, &rule.table.to_ne_bytes())
        .put(fra::PROTOCOL, &[crate::NODE_PROTOCOL]);
    Request::raw("set rule", rule.priority, kind, flags, body.bytes())
}
