//! SIGKILL at every side effect, and at random instants under load.
//!
//! Afterwards: no address has two owners, DEL succeeds, GC and the check with repair leave
//! nothing, and the kernel has no stray link or route.

#![allow(clippy::unwrap_used)]

use e2e::clean::{check, kernel_is_clean, nothing_held};
use e2e::cnirun::{addresses, finish};
use e2e::random::{Random, seed};
use e2e::strace::{SIDE_EFFECTS, kill_at};
use e2e::{Attachment, Bed, Failure, Netns, Network, bins, conf};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// More side effects of one kind than any call has: the sweep must end before.
const MANY: u32 = 400;

/// Calls `round(prefix)` with a SIGKILL at every side effect in turn, until a round survives.
fn sweep(mut round: impl FnMut(Vec<std::ffi::OsString>, &str) -> Result<(), Failure>) -> u32 {
    let mut kills = 0;
    for call in SIDE_EFFECTS {
        for nth in 1..MANY {
            let point = format!("{call} number {nth}");
            match round(kill_at(call, nth), &point) {
                Ok(()) => break,
                Err(_) => kills += 1,
            }
            assert!(nth + 1 < MANY, "no end of {call}");
        }
    }
    kills
}

fn assert_repaired(bed: &Bed, network: &Network, point: &str) {
    network.gc(&[]).unwrap_or_else(|e| panic!("GC after a kill at {point}: {e}"));
    let (report, _) = check(bed, true);
    assert_eq!(report["duplicated"], serde_json::json!([]), "after a kill at {point}");
    nothing_held(bed);
    kernel_is_clean(&bed.host);
}

// REQ: A-16
// REQ: C-08
#[test]
fn add_killed_at_every_side_effect_then_deleted() {
    let bed = Bed::new("killadd");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let mut network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let kills = sweep(|prefix, point| {
        network.wrap = prefix;
        let outcome = network.add(&pod);
        network.wrap.clear();
        network.del(&pod).unwrap_or_else(|e| panic!("DEL after a kill at {point}: {e}"));
        nothing_held(&bed);
        kernel_is_clean(&bed.host);
        assert_eq!(ns.link_names("eth0"), Vec::<String>::new(), "after a kill at {point}");
        outcome.map(drop)
    });
    println!("{kills} kills of ADD, each followed by DEL");
    assert!(kills > 10, "only {kills} kills: does strace work?");
}

// REQ: C-16
#[test]
fn add_killed_at_every_side_effect_then_added_again() {
    let bed = Bed::new("killagain");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let mut network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let kills = sweep(|prefix, point| {
        network.wrap = prefix;
        let outcome = network.add(&pod);
        network.wrap.clear();
        network.add(&pod).unwrap_or_else(|e| panic!("ADD after a kill at {point}: {e}"));
        network.check(&pod).unwrap_or_else(|e| panic!("CHECK after a kill at {point}: {e}"));
        e2e::clean::held(&bed, 2);
        network.del(&pod).unwrap();
        nothing_held(&bed);
        kernel_is_clean(&bed.host);
        outcome.map(drop)
    });
    println!("{kills} kills of ADD, each followed by ADD");
}

// REQ: A-12
// REQ: A-16
#[test]
fn add_killed_at_every_side_effect_then_forgotten() {
    let bed = Bed::new("killforget");
    let mut network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let kills = sweep(|prefix, point| {
        let ns = bed.netns("pod");
        network.wrap = prefix;
        let outcome = network.add(&Attachment::new("c1", &ns));
        network.wrap.clear();
        drop(ns);
        assert_repaired(&bed, &network, point);
        outcome.map(drop)
    });
    println!("{kills} kills of ADD, each followed by GC");
}

// REQ: A-16
// REQ: C-08
#[test]
fn del_killed_at_every_side_effect() {
    let bed = Bed::new("killdel");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let mut network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let kills = sweep(|prefix, point| {
        network.add(&pod).unwrap_or_else(|e| panic!("ADD before a kill at {point}: {e}"));
        network.wrap = prefix;
        let outcome = network.del(&pod);
        network.wrap.clear();
        network.del(&pod.without_netns()).unwrap_or_else(|e| panic!("DEL after a kill at {point}: {e}"));
        nothing_held(&bed);
        kernel_is_clean(&bed.host);
        outcome
    });
    println!("{kills} kills of DEL");
}

// REQ: C-16
#[test]
fn del_killed_at_every_side_effect_then_added_again() {
    let bed = Bed::new("killreadd");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let mut network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let kills = sweep(|prefix, point| {
        network.add(&pod).unwrap_or_else(|e| panic!("ADD before a kill at {point}: {e}"));
        network.wrap = prefix;
        let outcome = network.del(&pod);
        network.wrap.clear();
        network.add(&pod).unwrap_or_else(|e| panic!("ADD after a kill of DEL at {point}: {e}"));
        network.check(&pod).unwrap_or_else(|e| panic!("CHECK after a kill of DEL at {point}: {e}"));
        network.del(&pod).unwrap();
        nothing_held(&bed);
        kernel_is_clean(&bed.host);
        outcome
    });
    println!("{kills} kills of DEL, each followed by ADD");
}

/// Nothing is there yet: neither store, nor locks, nor firewall table, nor forwarding.
// REQ: A-16
#[test]
fn the_first_add_of_a_host_killed_at_every_side_effect() {
    let bed = Bed::new("killfirst");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let mut network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let kills = sweep(|prefix, point| {
        for dir in ["state", "run", "log"] {
            let _ = std::fs::remove_dir_all(bed.path(dir));
        }
        e2e::netns::must(bed.host.command("nft").args(["flush", "ruleset"]));
        network.wrap = prefix;
        let outcome = network.add(&pod);
        network.wrap.clear();
        network.add(&pod).unwrap_or_else(|e| panic!("ADD after a kill at {point}: {e}"));
        network.check(&pod).unwrap_or_else(|e| panic!("CHECK after a kill at {point}: {e}"));
        assert!(bed.host.ruleset().contains("percale"), "no firewall after a kill at {point}");
        network.del(&pod).unwrap();
        nothing_held(&bed);
        kernel_is_clean(&bed.host);
        outcome.map(drop)
    });
    println!("{kills} kills of a host's first ADD");
}

/// Who holds an address, as the answers tell.
#[derive(Default)]
struct Owners(Mutex<BTreeMap<IpAddr, String>>);

impl Owners {
    fn gain(&self, result: &Value, who: &str) {
        let mut owners = self.0.lock().unwrap();
        for ip in addresses(result) {
            let before = owners.insert(ip, who.to_owned());
            assert!(before.as_deref().is_none_or(|b| b == who), "{ip} of {before:?} given to {who}");
        }
    }

    fn lose(&self, who: &str) {
        self.0.lock().unwrap().retain(|_, owner| owner != who);
    }
}

/// One of the eight that add and delete their own containers, and are killed.
struct Actor<'a> {
    network: &'a Network<'a>,
    owners: &'a Owners,
    pod: Attachment,
    chance: Random,
    /// Kills are spread over this time from the start of a call.
    span: Duration,
}

impl Actor<'_> {
    /// Runs a verb and kills it at a random instant; true when it was killed before it answered.
    fn kill(&mut self, verb: &str) -> bool {
        let config = self.network.config(&self.network.plugins[0], None);
        let mut running = self.network.start(verb, &config, &self.pod);
        let span = u64::try_from(self.span.as_micros()).unwrap();
        thread::sleep(Duration::from_micros(self.chance.below(span)));
        let _ = running.child.kill();
        finish(running).status.code().is_none()
    }

    /// A killed call, then the same container id used again at once.
    fn round(&mut self) -> bool {
        let who = self.pod.container.clone();
        let verb = if self.chance.below(2) == 0 { "ADD" } else { "DEL" };
        if verb == "DEL" {
            let result = self.network.add(&self.pod).unwrap_or_else(|e| panic!("ADD of {who}: {e}"));
            self.owners.gain(&result, &who);
            self.owners.lose(&who);
        }
        let killed = self.kill(verb);
        if self.chance.below(2) == 0 {
            let result = self.network.add(&self.pod).unwrap_or_else(|e| panic!("ADD again of {who}: {e}"));
            self.owners.gain(&result, &who);
            self.owners.lose(&who);
        }
        self.network.del(&self.pod).unwrap_or_else(|e| panic!("DEL of {who} after {verb} was killed: {e}"));
        killed
    }
}

/// How long one call takes while seven others run.
fn time_under_load(network: &Network, pods: &[Attachment]) -> Duration {
    let begun = Instant::now();
    thread::scope(|scope| pods.iter().for_each(|pod| drop(scope.spawn(|| network.add(pod).unwrap()))));
    let took = begun.elapsed();
    pods.iter().for_each(|pod| network.del(pod).unwrap());
    took
}

// REQ: A-16
// REQ: C-03
#[test]
fn calls_killed_at_random_instants_under_load() {
    let wanted = if bins::full() { 1000 } else { 60 };
    let bed = Bed::new("killrandom");
    let network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let spaces: Vec<Netns> = (0..8).map(|i| bed.netns(&format!("p{i}"))).collect();
    let pods: Vec<Attachment> =
        spaces.iter().enumerate().map(|(i, ns)| Attachment::new(&format!("c{i}"), ns)).collect();
    let span = time_under_load(&network, &pods);
    let (owners, killed, rounds) = (Owners::default(), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for (i, pod) in pods.iter().enumerate() {
            let chance = Random::new(seed() + i as u64);
            let mut actor = Actor { network: &network, owners: &owners, pod: pod.clone(), chance, span };
            let (killed, rounds) = (&killed, &rounds);
            scope.spawn(move || {
                while killed.load(Ordering::Relaxed) < wanted {
                    assert!(
                        rounds.fetch_add(1, Ordering::Relaxed) < 20 * wanted,
                        "hardly any call is killed"
                    );
                    killed.fetch_add(usize::from(actor.round()), Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} kills in {} rounds, seed {}", killed.into_inner(), rounds.into_inner(), seed());
    assert_repaired(&bed, &network, "random instants");
}

/// Nobody comes back after the kill: what is left is found by GC and the check alone.
// REQ: A-12
#[test]
fn calls_killed_at_random_instants_and_never_repeated() {
    let wanted = if bins::full() { 300 } else { 40 };
    let bed = Bed::new("killleft");
    let network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let owners = Owners::default();
    let mut span = Duration::from_millis(20);
    for batch in 0..wanted / 8 {
        let spaces: Vec<Netns> = (0..8).map(|i| bed.netns(&format!("b{batch}p{i}"))).collect();
        let pods: Vec<Attachment> =
            spaces.iter().enumerate().map(|(i, ns)| Attachment::new(&format!("b{batch}c{i}"), ns)).collect();
        if batch == 0 {
            span = time_under_load(&network, &pods);
        }
        thread::scope(|scope| {
            for (i, pod) in pods.iter().enumerate() {
                let chance = Random::new(seed() + 1000 * batch as u64 + i as u64);
                let (network, owners) = (&network, &owners);
                let mut actor = Actor { network, owners, pod: pod.clone(), chance, span };
                scope.spawn(move || actor.kill("ADD"));
            }
        });
        let (report, _) = check(&bed, false);
        assert_eq!(report["duplicated"], serde_json::json!([]), "{report}");
        drop(spaces);
        if batch % 2 == 0 {
            check(&bed, true);
        }
        assert_repaired(&bed, &network, "random instants");
    }
}
