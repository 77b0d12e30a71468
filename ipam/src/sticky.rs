//! The addresses last held under a name, in a key of ours.

use model::decode::MAX_VALUE;
use model::{DecodeError, Family, Problem, Stored};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sticky {
    addresses: Vec<IpAddr>,
}

impl Sticky {
    /// Former addresses of a family, in ascending order.
    pub fn of(&self, family: Family) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().copied().filter(move |ip| Family::of(*ip) == family)
    }

    /// Replaces the addresses of the families that `given` has.
    pub fn remember(&mut self, given: &[IpAddr]) {
        let renewed = |ip: &IpAddr| given.iter().any(|new| Family::of(*new) == Family::of(*ip));
        self.addresses.retain(|ip| !renewed(ip));
        self.addresses.extend(given);
        self.addresses.sort();
    }
}

impl Stored for Sticky {
    fn decode(key: &str, value: &[u8]) -> Result<Self, DecodeError> {
        decode_side("sticky addresses", key, value)
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("sticky addresses have only plain keys")
    }
}

/// Decodes a value that only Percale writes.
pub(crate) fn decode_side<T: DeserializeOwned>(
    kind: &'static str,
    key: &str,
    value: &[u8],
) -> Result<T, DecodeError> {
    let fail = |problem| DecodeError { kind, subject: key.to_owned(), problem };
    if value.len() > MAX_VALUE {
        return Err(fail(Problem::TooLarge { size: value.len() }));
    }
    serde_json::from_slice(value)
        .map_err(|e| fail(Problem::Json { line: e.line(), column: e.column(), detail: e.to_string() }))
}
