//! Profiles: rules that apply where no policy does. A network without Kubernetes' policy has one of its
//! name (reference 1.8).

use crate::resource::{Resource, Spec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub type Profile = Resource<ProfileSpec>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProfileSpec {
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Spec for ProfileSpec {
    const KIND: &'static str = "Profile";
    const PLURAL: &'static str = "profiles";
}

/// The profile of a network: everything may go out; what may come in is everything for pods, and what has
/// the network's label otherwise.
pub fn of_network(network: &str, of_pods: bool) -> Profile {
    let ingress = match of_pods {
        true => json!({"action": "Allow", "source": {}, "destination": {}}),
        false => {
            json!({"action": "Allow", "source": {"selector": format!("has({network})")}, "destination": {}})
        }
    };
    let spec = json!({
        "ingress": [ingress],
        "egress": [{"action": "Allow", "source": {}, "destination": {}}],
        "labelsToApply": {network: ""},
    });
    let Value::Object(other) = spec else { unreachable!("it is written as an object") };
    Profile::new(network, ProfileSpec { other })
}
