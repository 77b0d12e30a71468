//! Network layer reachability information: RFC 4271 section 4.3, RFC 4760 section 5, RFC 7911 section 3.

use crate::{Family, Prefix};

use super::cursor::Cursor;

/// A prefix and the path identifier that the peer gave it; 0 without add-path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    pub prefix: Prefix,
    pub path_id: u32,
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Self {
        Nlri { prefix, path_id: 0 }
    }
}

/// `None` if a length is out of range or the octets run out: the whole field is then worthless.
pub(crate) fn decode(field: &[u8], family: Family, add_path: bool) -> Option<Vec<Nlri>> {
    let mut c = Cursor::new(field);
    let mut out = Vec::with_capacity(field.len() / 4);
    while !c.is_empty() {
        let path_id = if add_path { c.u32()? } else { 0 };
        let len = c.u8()?;
        if len > family.max_len() {
            return None;
        }
        let mut bits = [0; 16];
        let octets = c.take(usize::from(len).div_ceil(8))?;
        bits[..octets.len()].copy_from_slice(octets);
        out.push(Nlri { prefix: Prefix::from_bits(family, bits, len)?, path_id });
    }
    Some(out)
}

/// Octets of one NLRI on the wire.
pub(crate) fn wire_len(nlri: &Nlri, add_path: bool) -> usize {
    1 + nlri.prefix.wire_octets().len() + if add_path { 4 } else { 0 }
}

pub(crate) fn encode(nlri: &Nlri, add_path: bool, out: &mut Vec<u8>) {
    if add_path {
        out.extend_from_slice(&nlri.path_id.to_be_bytes());
    }
    out.push(nlri.prefix.prefix_len());
    out.extend_from_slice(nlri.prefix.wire_octets());
}
