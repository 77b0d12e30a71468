//! A node of a cluster with pods of its own.

use e2e::bed::copy_program;
use e2e::bridge::Bridge;
use e2e::clean::kernel_is_clean;
use e2e::cluster::{Cluster, Kind, Node, key, resource, soon};
use e2e::cnirun::{Answer, Failure};
use e2e::netns::{Netns, must};
use e2e::{Attachment, Bed, Network};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const NETWORK: &str = "k8s-pod-network";

pub struct Site {
    pub bed: Bed,
    pub node: Node,
    cluster: Arc<Cluster>,
    kind: Kind,
    /// To the API server, where the objects are in etcd.
    _api: Bridge,
}

/// A pool that only this site uses.
pub struct Pool {
    pub name: String,
    pub cidr: String,
    base: [u8; 2],
}

impl Pool {
    pub fn has(&self, ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == self.base)
    }

    pub fn address(&self, last: u8) -> IpAddr {
        Ipv4Addr::new(self.base[0], self.base[1], 0, last).into()
    }
}

pub fn text(failure: &Failure) -> String {
    failure.to_string()
}

pub fn code(answer: &Answer) -> Option<u64> {
    answer.result().err().and_then(|failure| failure.code())
}

impl Site {
    pub fn new(cluster: &Arc<Cluster>, kind: Kind, tag: &str) -> Self {
        let bed = Bed::new(tag);
        let node = Node::join(cluster, kind, &bed);
        let port = cluster.url().rsplit(':').next().unwrap().parse().unwrap();
        let api = Bridge::into(&bed.host, port);
        bed.write("api", node.kubeconfig(&api.url("https")));
        if kind == Kind::Etcd {
            // Whose pods run there is Kubernetes' to say.
            cluster.add_node(Kind::Kubernetes, &node.name);
        }
        Self { bed, node, cluster: cluster.clone(), kind, _api: api }
    }

    pub fn without_policy(&self) -> Network<'_> {
        Network::new(&self.bed, NETWORK, vec![self.node.plugin(&self.bed)])
    }

    /// With `policy.type` k8s.
    pub fn network(&self) -> Network<'_> {
        let mut plugin = self.node.plugin(&self.bed);
        plugin["policy"] = json!({"type": "k8s"});
        if self.kind == Kind::Etcd {
            plugin["kubernetes"] = json!({"kubeconfig": self.bed.path("api")});
        }
        Network::new(&self.bed, NETWORK, vec![plugin])
    }

    /// As Calico's installer writes it, run under Calico's names.
    pub fn calico(&self) -> Network<'_> {
        let mut network = self.network();
        let plugin = &mut network.plugins[0];
        plugin["type"] = json!("calico");
        plugin["ipam"]["type"] = json!("calico-ipam");
        plugin["nodename"] = json!(self.node.name);
        plugin["nodename_file_optional"] = json!(true);
        for name in ["calico", "calico-ipam"] {
            copy_program(&self.bed.bins.as_ref().unwrap().percale(), &self.bed.plugin_dir().join(name));
        }
        network
    }

    /// Names of pods are unique in the cluster that all tests share.
    pub fn pod_name(&self, name: &str) -> String {
        format!("{}-{name}", self.node.name)
    }

    pub fn args(&self, name: &str, made: Option<&Value>) -> String {
        match made {
            Some(_) => self.args_in("default", name, made),
            None => format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}"),
        }
    }

    pub fn args_in(&self, namespace: &str, name: &str, made: Option<&Value>) -> String {
        let uid = made.map(|pod| format!(";K8S_POD_UID={}", pod["metadata"]["uid"].as_str().unwrap()));
        let name = self.pod_name(name);
        format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}{}",
            uid.unwrap_or_default()
        )
    }

    pub fn make_pod(&self, name: &str, annotations: Value) -> Value {
        self.make_pod_in("default", name, annotations)
    }

    pub fn make_pod_in(&self, namespace: &str, name: &str, annotations: Value) -> Value {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.pod_name(name), "labels": {"app": name}, "annotations": annotations},
            "spec": {"nodeName": self.node.name, "serviceAccountName": "default", "containers": [
                {"name": "c", "image": "none", "ports": [{"name": "http", "containerPort": 8080}]}]},
        });
        let made = self.cluster.api("POST", &format!("/api/v1/namespaces/{namespace}/pods"), Some(&pod));
        assert!(made["metadata"]["uid"].is_string(), "{made}");
        made
    }

    pub fn pod(&self, name: &str) -> Value {
        self.cluster.api("GET", &format!("/api/v1/namespaces/default/pods/{}", self.pod_name(name)), None)
    }

    pub fn delete_pod(&self, name: &str) {
        let path = format!("/api/v1/namespaces/default/pods/{}", self.pod_name(name));
        self.cluster.api("DELETE", &path, Some(&json!({"gracePeriodSeconds": 0})));
    }

    pub fn make_namespace(&self, labels: Value, annotations: Value) -> String {
        let name = format!("of-{}", self.node.name);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels, "annotations": annotations}});
        let made = self.cluster.api("POST", "/api/v1/namespaces", Some(&namespace));
        assert!(made["metadata"]["uid"].is_string(), "{made}");
        name
    }

    /// A pool; `size` in `spec` is the length of its prefix, else 24.
    pub fn add_pool(&self, name: &str, spec: Value) -> Pool {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let second = 200 + COUNT.fetch_add(1, Ordering::SeqCst);
        let size = spec["size"].as_u64().unwrap_or(24);
        let cidr = format!("10.{second}.0.0/{size}");
        let mut all = json!({"cidr": cidr, "blockSize": size.max(28), "nodeSelector": "all()"});
        e2e::conf::put_all(&mut all, spec);
        all.as_object_mut().unwrap().remove("size");
        let name = format!("{}-{name}", self.node.name);
        self.put(&key("ippools", &name), Some(resource("IPPool", &name, all)));
        Pool { name, cidr, base: [10, u8::try_from(second).unwrap()] }
    }

    /// An IPv4 address of the node's own pool.
    pub fn node_address(&self, last: u8) -> IpAddr {
        let pool = self.stored(&key("ippools", &self.node.pool("v4"))).unwrap();
        let base = pool["spec"]["cidr"].as_str().unwrap().split('/').next().unwrap().to_owned();
        let [a, b, c, _] = base.parse::<Ipv4Addr>().unwrap().octets();
        Ipv4Addr::new(a, b, c, last).into()
    }

    pub fn endpoint_name(&self, pod: &str, ifname: &str) -> String {
        format!("{}-k8s-{}-{ifname}", self.node.name.replace('-', "--"), pod.replace('-', "--"))
    }

    /// The key of a pod's endpoint; of one that was made by its name in the cluster.
    pub fn endpoint_key(&self, pod: &str, ifname: &str) -> String {
        let name = if pod == "by-name" { pod.to_owned() } else { self.pod_name(pod) };
        format!(
            "/calico/resources/v3/projectcalico.org/workloadendpoints/default/{}",
            self.endpoint_name(&name, ifname)
        )
    }

    pub fn stored(&self, key: &str) -> Option<Value> {
        let found = self.cluster.store(self.kind).get(&[key], soon()).unwrap().remove(0)?;
        Some(serde_json::from_slice(&found.value).unwrap())
    }

    pub fn put(&self, key: &str, value: Option<Value>) {
        self.cluster.put(self.kind, key, value);
    }

    /// Addresses of this node's containers, in whatever pool.
    pub fn allocations(&self) -> usize {
        let blocks = self.cluster.store(self.kind).list("/calico/ipam/v2/assignment/", soon()).unwrap();
        let attributes = blocks.iter().flat_map(|entry| {
            let block: Value = serde_json::from_slice(&entry.value).unwrap();
            block["attributes"].as_array().cloned().unwrap_or_default()
        });
        attributes.filter(|attribute| attribute["secondary"]["node"] == json!(self.node.name)).count()
    }

    /// Nothing of any pod is left, in the store and in the kernel.
    pub fn is_empty(&self) {
        assert_eq!(self.node.given(), 0, "{:?}", self.kind);
        kernel_is_clean(&self.bed.host);
    }

    /// What Calico's plugin leaves in the kernel and in the store (reference 2.5, 2.6, 3.2), and its answer.
    pub fn as_calico_made(&self, pod: &Attachment, name: &str, ns: &Netns) -> Value {
        let host_end = self.host_end(name);
        let v4 = self.node_address(5).to_string();
        let pool = self.stored(&key("ippools", &self.node.pool("v6"))).unwrap();
        let v6 = format!("{}5", pool["spec"]["cidr"].as_str().unwrap().split('/').next().unwrap());
        self.wire_as_calico(&host_end, [&v4, &v6], ns);
        let handle = format!("{NETWORK}.{}", pod.container);
        let blocks = [(v4.as_str(), 28), (v6.as_str(), 122)]
            .map(|(ip, size)| self.calicos_block(ip, size, &handle, name));
        self.put(
            &format!("/calico/ipam/v2/handle/{handle}"),
            Some(json!({"block": {&blocks[0]: 1, &blocks[1]: 1}, "deleted": false})),
        );
        let ips = [format!("{v4}/32"), format!("{v6}/128")];
        self.endpoint_as_calico(pod, name, &host_end, &ips);
        json!({"cniVersion": "1.1.0", "interfaces": [{"name": host_end}],
               "ips": [{"address": ips[0]}, {"address": ips[1]}], "dns": {}})
    }

    fn host_end(&self, name: &str) -> String {
        let pod = self.pod_name(name);
        let script = format!("printf 'default.{pod}' | sha1sum | cut -c1-11");
        let hash = must(std::process::Command::new("sh").args(["-c", &script]));
        format!("cali{}", String::from_utf8(hash).unwrap().trim())
    }

    fn wire_as_calico(&self, host_end: &str, [v4, v6]: [&str; 2], ns: &Netns) {
        let host = |words: &str| drop(must(self.bed.host.command("ip").args(words.split(' '))));
        let pod = |words: &str| drop(must(ns.command("ip").args(words.split(' '))));
        host(&format!(
            "link add {host_end} address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {}",
            ns.name()
        ));
        pod("link set eth0 up");
        host(&format!("link set {host_end} up"));
        pod("route add 169.254.1.1 dev eth0 scope link");
        pod("route add default via 169.254.1.1 dev eth0");
        pod("-6 route add default via fe80::ecee:eeff:feee:eeee dev eth0");
        pod(&format!("addr add {v4}/32 dev eth0"));
        pod(&format!("addr add {v6}/128 dev eth0 nodad"));
        for (setting, value) in [
            (format!("net.ipv4.neigh.{host_end}.proxy_delay"), 0),
            (format!("net.ipv4.conf.{host_end}.proxy_arp"), 1),
            (format!("net.ipv4.conf.{host_end}.forwarding"), 1),
            (format!("net.ipv6.conf.{host_end}.proxy_ndp"), 1),
            (format!("net.ipv6.conf.{host_end}.forwarding"), 1),
            (format!("net.ipv6.conf.{host_end}.accept_ra"), 0),
        ] {
            must(self.bed.host.command("sysctl").args(["-qw", &format!("{setting}={value}")]));
        }
        host(&format!("route add {v4}/32 dev {host_end} scope link"));
        host(&format!("-6 route add {v6}/128 dev {host_end}"));
        e2e::bed::wait_for("the link-local address", || {
            let text =
                must(self.bed.host.command("ip").args(["-6", "addr", "show", "dev", host_end, "-tentative"]));
            String::from_utf8_lossy(&text).contains("fe80::ecee:eeff:feee:eeee")
        });
    }

    /// A block of the node in which the fifth address is taken, as Calico 3.18 writes it. Its CIDR.
    fn calicos_block(&self, ip: &str, size: u8, handle: &str, name: &str) -> String {
        let (network, count) = (ip.strip_suffix('5').unwrap(), if size == 28 { 16 } else { 64 });
        let network = if size == 28 { format!("{network}0") } else { network.to_owned() };
        let version = if size == 28 { 4 } else { 6 };
        let mut allocations = vec![Value::Null; count];
        allocations[5] = json!(0);
        let free: Vec<usize> = (0..count).filter(|ordinal| *ordinal != 5).collect();
        let attribute = json!({"handle_id": handle, "secondary": {"namespace": "default", "node": self.node.name,
            "pod": self.pod_name(name), "timestamp": "2021-02-22 10:00:00.123456789 +0000 UTC"}});
        let block = json!({"cidr": format!("{network}/{size}"), "affinity": format!("host:{}", self.node.name),
            "allocations": allocations, "unallocated": free, "attributes": [attribute], "deleted": false});
        let cidr = format!("{network}-{size}");
        let affinity = format!("/calico/ipam/v2/host/{}/ipv{version}/block/{cidr}", self.node.name);
        self.put(&affinity, Some(json!({"state": "confirmed", "deleted": false})));
        self.put(&format!("/calico/ipam/v2/assignment/ipv{version}/block/{cidr}"), Some(block));
        format!("{network}/{size}")
    }

    fn endpoint_as_calico(&self, pod: &Attachment, name: &str, host_end: &str, ips: &[String; 2]) {
        if self.kind == Kind::Kubernetes {
            let path = format!("/api/v1/namespaces/default/pods/{}/status", self.pod_name(name));
            let noted = json!({"metadata": {"annotations": {
                "cni.projectcalico.org/podIP": ips[0], "cni.projectcalico.org/podIPs": ips.join(",")}}});
            self.cluster.api("PATCH", &path, Some(&noted));
            return;
        }
        let name = self.pod_name(name);
        let endpoint = json!({
            "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": self.endpoint_name(&name, "eth0"), "namespace": "default",
                "uid": "2d8d3e0b-50c2-4fa0-a1e0-1c3d2c0a4b11", "creationTimestamp": "2021-02-22T10:00:00Z",
                "labels": {"projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"}},
            "spec": {"orchestrator": "k8s", "workload": "", "node": self.node.name, "containerID": pod.container,
                "pod": name, "endpoint": "eth0", "ipNetworks": ips, "profiles": ["kns.default"],
                "interfaceName": host_end, "mac": "aa:bb:cc:dd:ee:ff"},
        });
        self.put(
            &format!(
                "/calico/resources/v3/projectcalico.org/workloadendpoints/default/{}",
                self.endpoint_name(&name, "eth0")
            ),
            Some(endpoint),
        );
    }
}
