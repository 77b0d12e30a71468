//! FelixConfiguration: settings of the host daemon, for all nodes (`default`) or one (`node.NAME`).

use crate::resource::{Resource, Spec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub type FelixConfiguration = Resource<FelixSpec>;

/// Every setting as it is stored; who uses one knows its form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FelixSpec {
    #[serde(flatten)]
    pub settings: Map<String, Value>,
}

impl Spec for FelixSpec {
    const KIND: &'static str = "FelixConfiguration";
    const PLURAL: &'static str = "felixconfigurations";
}
