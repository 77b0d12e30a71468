//! JSON of a pod, a namespace or a workload endpoint, or an endpoint's name. What is derived from a pod can
//! be stored and read again, and names parse one way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::endpoint::{NameOf, endpoint_name, of_pod, parse_name};
use model::pod::{self, Namespace, Pod};
use model::{Stored, WorkloadEndpoint};

fuzz_target!(|data: &[u8]| {
    if let Ok(pod) = Pod::decode(&pod::key("ns", "web-0"), data) {
        let namespace = Namespace::decode(&pod::namespace_key("ns"), data).ok();
        let _ = pod::wishes(&pod, namespace.as_ref());
        if let Some(endpoint) = of_pod(&pod, "eth0") {
            assert_eq!(WorkloadEndpoint::decode(&endpoint.key(), &endpoint.encode()), Ok(endpoint));
        }
    }
    let key = "/calico/resources/v3/projectcalico.org/workloadendpoints/ns/n-k8s-web--0-eth0";
    if let Ok(mut endpoint) = WorkloadEndpoint::decode(key, data) {
        assert_eq!(WorkloadEndpoint::decode(key, &endpoint.encode()), Ok(endpoint.clone()));
        let ips = endpoint.spec.addresses();
        endpoint.spec.set_floating(&ips);
    }
    if let Some([node, orchestrator, middle, endpoint]) = std::str::from_utf8(data).ok().and_then(parse_name)
    {
        let (pod, workload, container_id) = (&*middle, &*middle, &*middle);
        let of = NameOf {
            node: &node,
            orchestrator: &orchestrator,
            pod,
            workload,
            container_id,
            endpoint: &endpoint,
        };
        // Calico gives this orchestrator one name for all.
        if orchestrator != "libnetwork" {
            assert_eq!(endpoint_name(&of).as_deref().map(str::as_bytes), Some(data));
        }
    }
});
