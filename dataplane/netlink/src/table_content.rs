//! What an nftables table holds in the kernel, as one number: its flags, chains, rules and sets
//! (linux/netfilter/nf_tables.h). Handles, counters and use counts, which change by themselves, are left out.

use crate::reply::{Attrs, Reply};
use crate::request::{AttrWriter, Request};
use crate::ruleset::fnv1a;
use crate::{Error, Nl};
use rustix::io::Errno;

/// NFNL_SUBSYS_NFTABLES, in the upper half of a message's type.
const SUBSYSTEM: u16 = 10 << 8;
const NFPROTO_INET: u8 = 1;
/// In every kind of message: the name of the table.
const TABLE: u16 = 1;
/// NFTA_LIST_ELEM.
const LIST_ELEM: u16 = 1;

/// A kind of object: the message that asks for it, the one that tells it, and which attributes count.
struct Kind {
    get: u16,
    new: u16,
    counts: &'static [u16],
}

/// NFTA_TABLE_FLAGS.
const TABLES: Kind = Kind { get: 1, new: 0, counts: &[2] };
/// NFTA_CHAIN_NAME, _HOOK, _POLICY, _TYPE, _FLAGS.
const CHAINS: Kind = Kind { get: 4, new: 3, counts: &[3, 4, 5, 7, 10] };
/// NFTA_RULE_CHAIN; expressions are read apart.
const RULES: Kind = Kind { get: 7, new: 6, counts: &[2] };
/// NFTA_SET_NAME, _FLAGS, _KEY_TYPE, _KEY_LEN, _DATA_TYPE, _DATA_LEN, _TIMEOUT.
const SETS: Kind = Kind { get: 10, new: 9, counts: &[2, 3, 4, 5, 6, 7, 11] };
/// NFTA_SET_ELEM_LIST_SET; elements are read apart.
const ELEMENTS: Kind = Kind { get: 13, new: 12, counts: &[2] };

const RULE_EXPRESSIONS: u16 = 4;
const SET_NAME: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
/// NFTA_SET_ELEM_KEY, _DATA, _FLAGS, _KEY_END.
const ELEMENT_COUNTS: [u16; 4] = [1, 2, 3, 10];

/// The number; `None` where there is no such table in family `inet`. Equal tables have equal ones, on one kernel.
///
/// # Errors
/// The kernel's.
pub(crate) fn table_content(nl: &mut Nl, table: &str) -> Result<Option<u64>, Error> {
    let lookup =
        Request::raw("look up nftables table", table, SUBSYSTEM | TABLES.get, 0, named(table).bytes());
    let outcome = nl.ask(lookup)?;
    // INVAL: nf_tables is not loaded, so there is nothing yet.
    if matches!(outcome.errno(), Some(Errno::NOENT | Errno::INVAL | Errno::OPNOTSUPP)) {
        return Ok(None);
    }
    let mut content = Vec::new();
    outcome.ok()?.iter().for_each(|reply| kept(reply, &TABLES, &mut content));
    for (chains, _) in list(nl, &CHAINS, table, None)? {
        content.extend(chains);
    }
    for (rule, reply) in list(nl, &RULES, table, None)? {
        content.extend(rule);
        expressions(&reply, &mut content);
    }
    for (set, reply) in list(nl, &SETS, table, None)? {
        content.extend(set);
        let name = reply.split(4).and_then(|(_, attrs)| attrs.text(SET_NAME)).unwrap_or_default();
        content.extend(elements(nl, table, &name)?);
    }
    Ok(Some(fnv1a(&content)))
}

fn named(table: &str) -> AttrWriter {
    AttrWriter::with_header(&[NFPROTO_INET, 0, 0, 0]).text(TABLE, table)
}

/// All objects of a kind in a table: what of them counts, and the whole message.
fn list(nl: &mut Nl, kind: &Kind, table: &str, set: Option<&str>) -> Result<Vec<(Vec<u8>, Reply)>, Error> {
    let make = |flags| {
        let body = set.into_iter().fold(named(table), |body, set| body.text(SET_NAME, set));
        Request::raw("list nftables objects of", table, SUBSYSTEM | kind.get, flags, body.bytes())
    };
    nl.dump(make, |reply| {
        let (_, attrs) = reply.split(4)?;
        // Some kinds are listed for all tables, whatever was asked for.
        let is_ours = reply.kind & 0xff == kind.new && attrs.text(TABLE).as_deref() == Some(table);
        let mut content = Vec::new();
        kept(&reply, kind, &mut content);
        is_ours.then_some((content, reply))
    })
}

fn kept(reply: &Reply, kind: &Kind, content: &mut Vec<u8>) {
    let Some((_, attrs)) = reply.split(4) else { return };
    content.extend(kind.new.to_be_bytes());
    attrs.iter().filter(|(number, _)| kind.counts.contains(number)).for_each(|attr| append(content, attr));
}

fn append(content: &mut Vec<u8>, (number, value): (u16, &[u8])) {
    content.extend(number.to_be_bytes());
    content.extend((value.len() as u64).to_be_bytes());
    content.extend(value);
}

/// Of a counter (NFTA_EXPR_NAME `counter`) it counts that it is there, not where it stands.
fn expressions(reply: &Reply, content: &mut Vec<u8>) {
    const EXPR_NAME: u16 = 1;
    let Some((_, attrs)) = reply.split(4) else { return };
    for (number, expression) in attrs.nested(RULE_EXPRESSIONS).into_iter().flat_map(Attrs::iter) {
        let is_counter = Attrs(expression).text(EXPR_NAME).as_deref() == Some("counter");
        append(content, (number, if is_counter { b"counter" } else { expression }));
    }
}

/// In an order of their own: that of a hashed set depends on chance.
fn elements(nl: &mut Nl, table: &str, set: &str) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    for (_, reply) in list(nl, &ELEMENTS, table, Some(set))? {
        let listed = reply.split(4).and_then(|(_, attrs)| attrs.nested(LIST_ELEMENTS));
        let elements = listed.into_iter().flat_map(Attrs::iter).filter(|(number, _)| *number == LIST_ELEM);
        all.extend(elements.map(|(_, element)| {
            let mut content = Vec::new();
            let counts = Attrs(element).iter().filter(|(number, _)| ELEMENT_COUNTS.contains(number));
            counts.for_each(|attr| append(&mut content, attr));
            content
        }));
    }
    all.sort_unstable();
    Ok(all.concat())
}

/// Reads a message as each kind of object.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn read_as_all(reply: &Reply) -> Vec<u8> {
    let mut content = Vec::new();
    for kind in [TABLES, CHAINS, RULES, SETS, ELEMENTS] {
        kept(reply, &kind, &mut content);
    }
    expressions(reply, &mut content);
    content
}
