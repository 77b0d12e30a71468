//! Changes of stored objects, typed: what a watch tells, for those who follow a store.

use crate::decode::{DecodeError, Stored};
use crate::felix::FelixConfiguration;
use crate::keys::{self, Key};
use crate::{Block, IpPool, Node, Scope};
use ipnet::IpNet;

/// A stored object as it is now; `None` where it is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Pool {
        name: String,
        pool: Option<Box<IpPool>>,
    },
    Block {
        cidr: IpNet,
        block: Option<Box<Block>>,
    },
    Node {
        name: String,
        node: Option<Box<Node>>,
    },
    Felix {
        name: String,
        config: Option<Box<FelixConfiguration>>,
    },
    /// What a network without a pool object wants masqueraded.
    Masquerade {
        network: String,
        nets: Option<Vec<IpNet>>,
    },
}

impl Change {
    /// Reads what stands under a key now. `None`: a key of another kind.
    ///
    /// # Errors
    /// The object is damaged; whoever follows the store keeps what it had.
    pub fn read(key: &str, value: Option<&[u8]>) -> Result<Option<Self>, DecodeError> {
        let change = match keys::parse(key) {
            Some(Key::Block { scope: Scope::Cluster, cidr }) => {
                Self::Block { cidr, block: decode::<Block>(key, value)?.map(Box::new) }
            }
            Some(Key::Masquerade { network }) => Self::Masquerade { network, nets: value.map(nets) },
            Some(Key::Resource { kind, name }) => match kind.as_str() {
                "ippools" => Self::Pool { name, pool: decode::<IpPool>(key, value)?.map(Box::new) },
                "nodes" => Self::Node { name, node: decode(key, value)?.map(Box::new) },
                "felixconfigurations" => Self::Felix { name, config: decode(key, value)?.map(Box::new) },
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(change))
    }
}

fn decode<T: Stored>(key: &str, value: Option<&[u8]>) -> Result<Option<T>, DecodeError> {
    value.map(|value| T::decode(key, value)).transpose()
}

fn nets(value: &[u8]) -> Vec<IpNet> {
    serde_json::from_slice(value).unwrap_or_default()
}
