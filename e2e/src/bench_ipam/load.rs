//! Hosts with workers that take and give back addresses of a pool that is nearly full.

use super::store::Host;
use super::{Case, Size};
use crate::cluster::{Cluster, Kind};
use datastore::DriveError;
use ipam::{IpamError, Pools};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Addresses that a worker holds at most; together they are nearly all of the pool.
const HELD: usize = 5;

#[derive(Default)]
struct Counts {
    assigned: AtomicU64,
    released: AtomicU64,
    conflicts: AtomicU64,
    /// Refused because the pool was full at that moment.
    full: AtomicU64,
    /// Microseconds of all assignments.
    waited: AtomicU64,
}

/// Who has which address, as the workers know it.
#[derive(Default)]
struct Ledger(Mutex<BTreeMap<IpAddr, String>>);

impl Ledger {
    fn take(&self, ip: IpAddr, id: &str) {
        let before = self.0.lock().expect("no worker panics").insert(ip, id.to_owned());
        assert_eq!(before, None, "{ip} was given to {id} too");
    }

    fn give_back(&self, ip: IpAddr) {
        self.0.lock().expect("no worker panics").remove(&ip);
    }
}

pub fn run(cluster: &Cluster, kind: Kind, size: &Size) -> Vec<Case> {
    let hosts: Vec<(Host, Mutex<()>)> =
        (0..size.hosts).map(|n| (host(cluster, kind, n), Mutex::default())).collect();
    let first = &hosts[0].0;
    // Blocks of 16, and 2 % more addresses than the workers ever hold.
    let wanted = size.hosts * size.workers * HELD;
    let bits = (wanted + wanted / 50).next_power_of_two().trailing_zeros();
    first.pool("load", &format!("10.64.0.0/{}", 32 - bits), 28);
    let spare = (1_usize << bits) - wanted;
    let filler = spare.saturating_sub(wanted / 50);
    for n in 0..filler {
        first.assign(&format!("filler-{n}"), Pools::Enabled).unwrap_or_else(|e| panic!("{e}"));
    }
    let (counts, ledger) = (Counts::default(), Ledger::default());
    let end = Instant::now() + Duration::from_secs(size.seconds);
    std::thread::scope(|scope| {
        for (host, lock) in &hosts {
            for worker in 0..size.workers {
                let (counts, ledger) = (&counts, &ledger);
                scope.spawn(move || work(host, lock, worker, end, counts, ledger));
            }
        }
    });
    let (report, held) = first.audit();
    let known: BTreeSet<IpAddr> = ledger.0.lock().expect("no worker panics").keys().copied().collect();
    assert_eq!(held.len(), known.len() + filler, "{kind:?}: counts are exact at the end");
    assert!(known.iter().all(|ip| held.contains(ip)), "{kind:?}: everyone has what was answered");
    assert!(report.clean(), "{kind:?}: {report:#?}");
    first.put(&model::keys::pool("load"), None);
    vec![case(kind, size, &counts, known.len() + filler)]
}

fn host(cluster: &Cluster, kind: Kind, number: usize) -> Host {
    let name = format!("host-{number}");
    cluster.add_node(kind, &name);
    Host::new(&name, cluster.store(kind))
}

fn case(kind: Kind, size: &Size, counts: &Counts, held: usize) -> Case {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let assigned = load(&counts.assigned);
    let per = |count: u64| (count as f64 / assigned.max(1) as f64 * 1000.0).round() / 1000.0;
    Case::new(
        format!("{kind:?}: {} hosts x {} workers, one assignment", size.hosts, size.workers),
        Duration::from_micros(load(&counts.waited) / assigned.max(1)),
        "none",
        f64::NAN,
        json!({
            "assigned": assigned, "released": load(&counts.released), "seconds": size.seconds,
            "per_second": (assigned + load(&counts.released)) / size.seconds.max(1),
            "conflicts_per_assignment": per(load(&counts.conflicts)), "refused_full": load(&counts.full),
            "held_at_the_end": held, "given_twice": 0, "audit_findings": 0,
        }),
    )
}

/// Takes addresses up to its share, then gives one back for each that it takes. The host's IPAM lock is held
/// for each operation, as the plugin does.
fn work(host: &Host, lock: &Mutex<()>, worker: usize, end: Instant, counts: &Counts, ledger: &Ledger) {
    let mut held: Vec<(String, IpAddr)> = Vec::new();
    for round in 0_usize.. {
        if Instant::now() > end {
            return;
        }
        let _lock = lock.lock().expect("no worker panics");
        if held.len() == HELD {
            let (id, ip) = held.remove(round * 7 % HELD);
            // From the moment it is free others may have it.
            ledger.give_back(ip);
            let (freed, cost) = host.release(&id);
            assert_eq!(freed, [ip], "{id}");
            counts.released.fetch_add(1, Ordering::Relaxed);
            counts.conflicts.fetch_add(cost.conflicts.into(), Ordering::Relaxed);
            continue;
        }
        let id = format!("{}-{worker}-{round}", host.name);
        let began = Instant::now();
        match host.assign(&id, Pools::Enabled) {
            Ok((ip, cost)) => {
                ledger.take(ip, &id);
                held.push((id, ip));
                counts.assigned.fetch_add(1, Ordering::Relaxed);
                counts.conflicts.fetch_add(cost.conflicts.into(), Ordering::Relaxed);
                counts.waited.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
            Err(DriveError::Plan(IpamError::Exhausted { .. })) => {
                counts.full.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{id}: {error}"),
        }
    }
}
