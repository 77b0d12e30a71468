//! Many ADDs at once: wall time, less that of as many processes that do nothing.

use super::calls::ms;
use super::contender::Contender;
use crate::bed::{Bed, compile, wait_for};
use crate::clean::pod_links;
use crate::cnirun::{Answer, Attachment, Network, Running, finish};
use crate::netns::Netns;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Milliseconds of each burst of `pods` ADDs, in the order of the contenders.
pub fn add(all: &[Contender], pods: usize, rounds: usize) -> Vec<Vec<f64>> {
    let empty = compile(&all[0].bed, "int main(void) { return 0; }\n", "empty");
    let mut times = vec![Vec::new(); all.len()];
    for round in 0..=rounds {
        for turn in 0..all.len() {
            let i = (turn + round) % all.len();
            let floor = empty_burst(&empty, pods);
            let took = burst(&all[i], pods, round) - floor;
            if round > 0 {
                times[i].push(took);
            }
        }
    }
    times
}

fn burst(contender: &Contender, pods: usize, round: usize) -> f64 {
    let (_spaces, attachments) = attachments(contender, pods, round);
    let network = contender.network();
    let (took, results) = add_all(contender, &network, &attachments);
    for (result, pod) in results.iter().zip(&attachments) {
        remove(&network, pod, result);
    }
    settle(&contender.bed);
    took
}

fn attachments(contender: &Contender, pods: usize, round: usize) -> (Vec<Netns>, Vec<Attachment>) {
    let spaces: Vec<Netns> = (0..pods).map(|i| contender.pod(&format!("p{i}"))).collect();
    let attachment = |(i, ns)| Attachment::new(&format!("r{round}c{i}"), ns);
    let attachments = spaces.iter().enumerate().map(attachment).collect();
    (spaces, attachments)
}

/// Milliseconds, and the results.
fn add_all(contender: &Contender, network: &Network, pods: &[Attachment]) -> (f64, Vec<Value>) {
    let config = network.config(&network.plugins[0], None);
    let begun = Instant::now();
    let running: Vec<Running> = pods.iter().map(|pod| network.start("ADD", &config, pod)).collect();
    let answers: Vec<_> = running.into_iter().map(finish).collect();
    let took = ms(begun.elapsed());
    let result = |a: &Answer| a.result().unwrap_or_else(|e| panic!("ADD by {}: {e}", contender.name));
    (took, answers.iter().map(result).collect())
}

/// Milliseconds of each burst of `pods` DELs, in the order of the contenders, and of as many processes that
/// do nothing.
pub fn del(all: &[Contender], pods: usize, rounds: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let empty = compile(&all[0].bed, "int main(void) { return 0; }\n", "empty");
    let mut times = vec![Vec::new(); all.len()];
    let mut floor = Vec::new();
    for round in 0..rounds {
        for turn in 0..all.len() {
            let i = (turn + round) % all.len();
            times[i].push(burst_of_dels(&all[i], pods, round));
        }
        floor.push(empty_burst(&empty, pods));
    }
    (times, floor)
}

fn burst_of_dels(contender: &Contender, pods: usize, round: usize) -> f64 {
    let (_spaces, attachments) = attachments(contender, pods, round);
    let network = contender.network();
    let (_, results) = add_all(contender, &network, &attachments);
    let config = |result| network.config(&network.plugins[0], Some(result));
    let configs: Vec<Value> = results.iter().map(config).collect();
    let begun = Instant::now();
    let each = attachments.iter().zip(&configs);
    let running: Vec<Running> = each.map(|(pod, config)| network.start("DEL", config, pod)).collect();
    let answers: Vec<_> = running.into_iter().map(finish).collect();
    let took = ms(begun.elapsed());
    answers
        .iter()
        .for_each(|a| drop(a.result().unwrap_or_else(|e| panic!("DEL by {}: {e}", contender.name))));
    settle(&contender.bed);
    took
}

fn remove(network: &Network, pod: &Attachment, result: &Value) {
    let config = network.config(&network.plugins[0], Some(result));
    network.exec("DEL", &config, pod).result().unwrap_or_else(|e| panic!("DEL: {e}"));
}

fn settle(bed: &Bed) {
    wait_for("the links are gone", || pod_links(&bed.host).is_empty());
}

/// As many processes that do nothing, started and waited for in the same way.
fn empty_burst(program: &Path, count: usize) -> f64 {
    let begun = Instant::now();
    let running: Vec<Child> = (0..count).map(|_| start_empty(program)).collect();
    for child in running {
        child.wait_with_output().expect("a child can be waited for");
    }
    ms(begun.elapsed())
}

fn start_empty(program: &Path) -> Child {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the empty program can be run");
    let _ = child.stdin.take().expect("stdin is a pipe").write_all(&[b' '; 700]);
    child
}
