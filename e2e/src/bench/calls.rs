//! Calls one at a time, the contenders taking turns.

use super::contender::Contender;
use super::kernel::bare_dellink;
use crate::bed::wait_for;
use crate::clean::pod_links;
use crate::cnirun::{Attachment, Network};

/// Milliseconds of every call, in the order of the contenders.
pub struct Times {
    pub add: Vec<Vec<f64>>,
    pub del: Vec<Vec<f64>>,
    /// Deletions of a veth by nothing but the kernel.
    pub bare: Vec<f64>,
}

/// Adds and deletes one pod at a time; the first round warms up and does not count.
pub fn add_and_del(all: &[Contender], rounds: usize) -> Times {
    let networks: Vec<Network> = all.iter().map(Contender::network).collect();
    let mut times =
        Times { add: vec![Vec::new(); all.len()], del: vec![Vec::new(); all.len()], bare: Vec::new() };
    for round in 0..=rounds {
        for turn in 0..all.len() {
            let i = (turn + round) % all.len();
            let (add, del) = add_then_del(&all[i], &networks[i], round);
            if round > 0 {
                times.add[i].push(add);
                times.del[i].push(del);
            }
        }
        let bare = bare_dellink(&all[0].bed);
        if round > 0 {
            times.bare.push(bare);
        }
    }
    times
}

fn add_then_del(contender: &Contender, network: &Network, round: usize) -> (f64, f64) {
    let ns = contender.pod("pod");
    let pod = Attachment::new(&format!("c{round}"), &ns);
    let plugin = &network.plugins[0];
    let add = network.exec("ADD", &network.config(plugin, None), &pod);
    let result = add.result().unwrap_or_else(|e| panic!("ADD by {}: {e}", contender.name));
    let del = network.exec("DEL", &network.config(plugin, Some(&result)), &pod);
    del.result().unwrap_or_else(|e| panic!("DEL by {}: {e}", contender.name));
    // A link that goes after the answer must not disturb the next one's turn.
    wait_for("the link is gone", || pod_links(&contender.bed.host).is_empty());
    (ms(add.took), ms(del.took))
}

/// ADDs of the IPAM plugins by themselves.
pub fn ipam(all: &[Contender], rounds: usize) -> Vec<Vec<f64>> {
    let networks: Vec<Network> = all.iter().map(Contender::network).collect();
    let mut times = vec![Vec::new(); all.len()];
    for round in 0..=rounds {
        for turn in 0..all.len() {
            let i = (turn + round) % all.len();
            let took = ipam_add(&all[i], &networks[i], round);
            if round > 0 {
                times[i].push(took);
            }
        }
    }
    times
}

fn ipam_add(contender: &Contender, network: &Network, round: usize) -> f64 {
    let pod = Attachment {
        container: format!("c{round}"),
        ifname: "eth0".to_owned(),
        netns: "/run/netns/none".into(),
        args: String::new(),
    };
    let stdin = network.config(&network.plugins[0], None).to_string();
    let answer = network.exec_raw("ADD", contender.ipam_plugin(), stdin.as_bytes(), &pod);
    answer.result().unwrap_or_else(|e| panic!("ADD by {}: {e}", contender.ipam_plugin()));
    ms(answer.took)
}

pub fn ms(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
