//! Several nodes to look at, until the input ends: `scripts/testbed nodes [N] [MODE]`.

use e2e::nodes::Cluster;

fn main() {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().and_then(|n| n.parse().ok()).filter(|n| (1..=40).contains(n)).unwrap_or(3);
    let mode = args.next().unwrap_or_else(|| "CrossSubnet".to_owned());
    // The last third is in the second subnet.
    let subnets: Vec<u8> = (0..count).map(|n| if n * 3 >= count * 2 { 2 } else { 1 }).collect();
    let env = [
        ("CALICO_NETWORKING_BACKEND", "vxlan"),
        ("CALICO_IPV4POOL_CIDR", "10.50.0.0/16"),
        ("CALICO_IPV4POOL_VXLAN", &mode),
        ("CALICO_IPV6POOL_CIDR", "fd50::/64"),
        ("CALICO_IPV6POOL_VXLAN", &mode),
    ];
    let cluster = Cluster::ready("bed", &subnets, &env);
    println!("router and etcd: ip netns exec {} ...", cluster.router.name());
    let pods: Vec<_> = (0..count).map(|n| cluster.add(n, &format!("pod{n}"))).collect();
    for (node, pod) in cluster.nodes.iter().zip(&pods) {
        println!(
            "{}: ip netns exec {} ...; log {}",
            node.name,
            node.host.name(),
            node.dir.join("log").display()
        );
        println!("    pod: ip netns exec {} ...; {:?}", pod.netns.name(), pod.addresses);
    }
    println!("everything ends with the input (Ctrl-D)");
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}
