//! The endpoint that a pod has, as Calico derives it from the pod alone (reference 2.6).

use super::{
    ACCOUNT_LABEL, KUBERNETES, NAMESPACE_LABEL, ORCHESTRATOR_LABEL, WorkloadEndpoint, WorkloadEndpointSpec,
};
use crate::pod::{Pod, wishes_leniently};
use crate::veth::{self, HostNameOf};

/// Annotations of a pod in which its endpoint is kept.
pub const POD_IP: &str = "cni.projectcalico.org/podIP";
pub const POD_IPS: &str = "cni.projectcalico.org/podIPs";
pub const CONTAINER_ID: &str = "cni.projectcalico.org/containerID";

/// The endpoint of a pod on its node. `None`: the pod has none, being on no node or in the host's network.
///
/// `ifname` is a name of an interface; Kubernetes itself knows one only, which Calico calls `eth0`.
pub fn of_pod(pod: &Pod, ifname: &str) -> Option<WorkloadEndpoint> {
    if pod.node.is_empty() || pod.host_network {
        return None;
    }
    let mut spec = WorkloadEndpointSpec {
        orchestrator: KUBERNETES.to_owned(),
        node: pod.node.clone(),
        container_id: pod.annotation(CONTAINER_ID).unwrap_or_default().to_owned(),
        pod: pod.name.clone(),
        endpoint: ifname.to_owned(),
        service_account_name: pod.account.clone(),
        profiles: profiles(pod),
        interface_name: veth::host_name(&HostNameOf::Pod { namespace: &pod.namespace, pod: &pod.name }),
        ports: pod.ports.clone(),
        ..WorkloadEndpointSpec::default()
    };
    spec.set_addresses(pod.addresses());
    let wishes = wishes_leniently(pod);
    spec.set_floating(&wishes.floating);
    spec.allow_spoofed_source_prefixes = wishes.source_prefixes.iter().map(ToString::to_string).collect();
    let mut endpoint = WorkloadEndpoint::new(&spec.name()?, spec);
    endpoint.metadata.namespace = Some(pod.namespace.clone());
    endpoint.metadata.labels = pod.labels.clone();
    let labels = &mut endpoint.metadata.labels;
    labels.insert(NAMESPACE_LABEL.to_owned(), pod.namespace.clone());
    labels.insert(ORCHESTRATOR_LABEL.to_owned(), KUBERNETES.to_owned());
    if !pod.account.is_empty() {
        labels.insert(ACCOUNT_LABEL.to_owned(), pod.account.clone());
    }
    endpoint.metadata.generate_name = Some(pod.generate_name.clone()).filter(|name| !name.is_empty());
    Some(endpoint)
}

fn profiles(pod: &Pod) -> Vec<String> {
    let of_namespace = format!("kns.{}", pod.namespace);
    let of_account = (!pod.account.is_empty()).then(|| format!("ksa.{}.{}", pod.namespace, pod.account));
    std::iter::once(of_namespace).chain(of_account).collect()
}
