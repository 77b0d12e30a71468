//! The rule that sends forwarded packets, and no others, through a table first.

use crate::request::{AttrWriter, Request};
use crate::{Error, Nl};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rustix::io::Errno;

/// linux/fib_rules.h.
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
const FIB_RULE_INVERT: u32 = 2;
const FR_ACT_TO_TBL: u8 = 1;
/// After the local table (0), before the main one (32766).
const PRIORITY: u32 = 1790;

/// Adds or removes `not iif lo lookup TABLE` for a family: packets that come in from anywhere look there first,
/// those that the host sends itself do not. What is as wished is left alone.
///
/// # Errors
/// `Refused`, `Io`, `TimedOut`.
pub fn set_forward_rule(nl: &mut Nl, v4: bool, table: u32, protocol: u8, wanted: bool) -> Result<(), Error> {
    let family = if v4 { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let mut header = [family, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
    header[8..].copy_from_slice(&FIB_RULE_INVERT.to_ne_bytes());
    let body = AttrWriter::with_header(&header)
        .text(FRA_IIFNAME, "lo")
        .put(FRA_PRIORITY, &PRIORITY.to_ne_bytes())
        .put(FRA_TABLE, &table.to_ne_bytes())
        .put(FRA_PROTOCOL, &[protocol]);
    let (op, kind, flags) = match wanted {
        true => ("add rule for", libc::RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL),
        false => ("remove rule for", libc::RTM_DELRULE, 0),
    };
    let outcome = nl.ask(Request::raw(op, format_args!("table {table}"), kind, flags, body.bytes()))?;
    match outcome.errno() {
        Some(Errno::EXIST) if wanted => Ok(()),
        Some(Errno::NOENT | Errno::AFNOSUPPORT) if !wanted => Ok(()),
        _ => outcome.ok().map(drop),
    }
}
