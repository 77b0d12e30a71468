//! SIGKILL at every system call that changes something, over installation, upgrade, take-over, give-back,
//! roll-back and removal. Afterwards the old or the new set works, pods keep their network, and the next
//! run finishes.

#![allow(clippy::unwrap_used)]

use e2e::clean::{kernel_is_clean, nothing_held};
use e2e::cnirun::addresses;
use e2e::containerd::CNI_VERSION;
use e2e::installer::{Installer, put_program, same, version};
use e2e::netns::must;
use e2e::random::{Random, seed};
use e2e::strace::{SIDE_EFFECTS, count_into, kill_at};
use e2e::{Attachment, Bed, Netns, Network, bins, conf, probe};
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MORE: &[&str] = &["fchmod", "statx", "getdents64"];
/// What a scenario starts from, and what the installer changes.
const DIRS: [&str; 3] = ["bin", "net.d", "istate"];

const ETCD: &str = "http://127.0.0.1:2379";

/// A way from one set to another.
struct Scenario {
    name: &'static str,
    args: &'static [&'static str],
    source: PathBuf,
    /// Whether there must be a working configuration at every point.
    always: bool,
    /// What `percale` is at the end; `None`: gone.
    percale: Option<PathBuf>,
    calico: Option<PathBuf>,
    /// What the daemon is told of Calico's work at the end.
    stage: Option<&'static str>,
}

struct Lab<'a> {
    bed: &'a Bed,
    /// A pod that runs all the time, and the namespace of others.
    running: Attachment,
    pod: Netns,
    addresses: Vec<IpAddr>,
    other: Attachment,
    own: Value,
}

impl Lab<'_> {
    fn installer(&self, source: &std::path::Path) -> Installer<'_> {
        Installer::new(self.bed, source, Some(&self.own))
    }

    /// The same network under Calico's names.
    fn calicos(&self) -> Value {
        let mut section = self.own["plugins"][0].clone();
        section["type"] = json!("calico");
        section["ipam"]["type"] = json!("calico-ipam");
        // Where it is asked whether policies exist.
        section["etcd_endpoints"] = json!(ETCD);
        conf::conflist("net", CNI_VERSION, &[section])
    }

    fn snapshot(&self, name: &str) {
        for dir in DIRS {
            let to = self.bed.path(&format!("snap/{name}"));
            fs::create_dir_all(&to).unwrap();
            fs::create_dir_all(self.bed.path(dir)).unwrap();
            must(Command::new("cp").arg("-a").arg(self.bed.path(dir)).arg(to));
        }
    }

    fn restore(&self, name: &str) {
        for dir in DIRS {
            let _ = fs::remove_dir_all(self.bed.path(dir));
            must(
                Command::new("cp")
                    .arg("-a")
                    .arg(self.bed.path(&format!("snap/{name}/{dir}")))
                    .arg(self.bed.dir()),
            );
        }
    }

    /// The network that a runtime would find now.
    fn network(&self) -> Option<Network<'_>> {
        let entries = fs::read_dir(self.bed.path("net.d")).unwrap().map(|e| e.unwrap().path());
        let mut files: Vec<PathBuf> =
            entries.filter(|p| p.extension().is_some_and(|e| e == "conflist")).collect();
        files.sort();
        let conf: Value = serde_json::from_slice(&fs::read(files.first()?).unwrap()).unwrap();
        Some(Network::new(self.bed, "net", conf["plugins"].as_array().unwrap().clone()))
    }

    /// Pods come, go, and stay, with what is installed now.
    fn works(&self, always: bool, point: &str) {
        let Some(network) = self.network() else {
            assert!(!always, "no configuration after a kill at {point}");
            return;
        };
        let result = network.add(&self.other).unwrap_or_else(|e| panic!("ADD after a kill at {point}: {e}"));
        assert!(!result.is_null());
        network.del(&self.other).unwrap_or_else(|e| panic!("DEL after a kill at {point}: {e}"));
        for ip in &self.addresses {
            probe::tcp(&self.bed.host, &self.pod, *ip)
                .unwrap_or_else(|e| panic!("the running pod's {ip} after a kill at {point}: {e}"));
        }
    }

    fn finished(&self, scenario: &Scenario, point: &str) {
        let bin = self.bed.plugin_dir();
        for (name, wanted) in [("percale", &scenario.percale), ("calico", &scenario.calico)] {
            match wanted {
                Some(file) => assert!(same(&bin.join(name), file), "{}: {name} after {point}", scenario.name),
                None => assert!(!bin.join(name).exists(), "{}: {name} is left after {point}", scenario.name),
            }
        }
        let stage = fs::read_to_string(self.bed.path("istate/take-over")).ok();
        assert_eq!(stage.as_deref().map(str::trim), scenario.stage, "{} after {point}", scenario.name);
        for dir in ["bin", "net.d"] {
            let names = fs::read_dir(self.bed.path(dir)).unwrap().map(|e| e.unwrap().file_name());
            let odd: Vec<_> = names.filter(|n| n.to_string_lossy().contains("percale-new")).collect();
            assert!(odd.is_empty(), "{odd:?} in {dir} after {point}");
        }
    }

    /// Every point of a scenario at which it can be killed.
    fn points(&self, scenario: &Scenario) -> Vec<(&'static str, u32)> {
        self.restore(scenario.name);
        let counts = self.bed.path("counts");
        must(&mut self.installer(&scenario.source).command(&count_into(&counts), scenario.args));
        let text = fs::read_to_string(counts).unwrap();
        let count = |call: &str| {
            let row = text.lines().find(|line| line.split_whitespace().last() == Some(call))?;
            row.split_whitespace().nth(3)?.parse::<u32>().ok()
        };
        let calls = SIDE_EFFECTS.iter().chain(MORE);
        calls.flat_map(|call| (1..=count(call).unwrap_or(0)).map(move |nth| (*call, nth))).collect()
    }

    /// One kill; true if it hit.
    fn kill(&self, scenario: &Scenario, call: &str, nth: u32) -> bool {
        let point = format!("{call} number {nth} of {}", scenario.name);
        self.restore(scenario.name);
        let out =
            self.installer(&scenario.source).command(&kill_at(call, nth), scenario.args).output().unwrap();
        self.after(scenario, &point);
        !out.status.success()
    }

    fn kill_in_time(&self, scenario: &Scenario, after: Duration) -> bool {
        self.restore(scenario.name);
        let mut command = self.installer(&scenario.source).command(&[], scenario.args);
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        let _ = child.kill();
        let status = child.wait().unwrap();
        self.after(scenario, &format!("{after:?} of {}", scenario.name));
        !status.success()
    }

    fn after(&self, scenario: &Scenario, point: &str) {
        self.works(scenario.always, point);
        self.installer(&scenario.source).ok(scenario.args);
        self.finished(scenario, point);
        self.works(scenario.always, point);
    }
}

/// Brings about every start and keeps it.
fn scenarios(lab: &Lab) -> Vec<Scenario> {
    let bed = lab.bed;
    let [zero, one, two] = ["0", "1", "2"].map(|tag| version(bed, tag));
    let percale = |source: &PathBuf| Some(source.join("percale"));
    let scenario = |name, args, source: &PathBuf, percale, calico, stage| Scenario {
        name,
        args,
        source: source.clone(),
        always: !matches!(name, "install" | "uninstall"),
        percale,
        calico,
        stage,
    };
    for name in ["percale", "percale-ipam"] {
        fs::remove_file(bed.plugin_dir().join(name)).unwrap();
    }
    lab.snapshot("install");
    lab.installer(&one).ok(&[]);
    for name in ["upgrade", "uninstall"] {
        lab.snapshot(name);
    }
    lab.installer(&two).ok(&[]);
    lab.snapshot("roll back");
    lab.restore("install");
    // As Calico leaves a node; its plugin is played by an older one of ours under its names.
    for name in ["calico", "calico-ipam"] {
        put_program(&zero.join("percale"), &bed.plugin_dir().join(name));
    }
    put_program(&zero.join("percale-cluster"), &bed.plugin_dir().join("percale-cluster"));
    bed.write("net.d/10-calico.conflist", lab.calicos().to_string());
    lab.snapshot("take over");
    lab.snapshot("take over whole");
    lab.installer(&one).ok(&["--take-over"]);
    lab.snapshot("give back");
    lab.installer(&one).ok(&["--take-over=all"]);
    lab.snapshot("give back whole");
    vec![
        scenario("install", &[], &one, percale(&one), None, None),
        scenario("upgrade", &[], &two, percale(&two), None, None),
        scenario("uninstall", &["--uninstall"], &one, None, None, None),
        scenario("roll back", &["--rollback"], &two, percale(&one), None, None),
        scenario("take over", &["--take-over"], &one, percale(&one), percale(&one), Some("plugin")),
        scenario("take over whole", &["--take-over=all"], &one, percale(&one), percale(&one), Some("all")),
        scenario("give back", &["--give-back"], &one, None, percale(&zero), Some("given-back")),
        scenario("give back whole", &["--give-back"], &one, None, percale(&zero), Some("given-back")),
    ]
}

fn start_etcd(bed: &Bed) {
    let mut etcd = bed.host.command("etcd");
    etcd.arg("--data-dir").arg(bed.path("etcd")).args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
    etcd.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD, "--log-level", "error"]);
    bed.spawn(etcd.stdout(Stdio::null()).stderr(Stdio::null()));
    let health = format!("{ETCD}/health");
    let answers =
        || bed.host.command("curl").args(["-sf", &health]).output().is_ok_and(|o| o.status.success());
    e2e::bed::wait_for("etcd answers", answers);
}

// REQ: I-02
// REQ: I-07
#[test]
fn killed_at_every_point_of_every_way() {
    let bed = Bed::new("instkill");
    let (pod, other) = (bed.netns("pod"), bed.netns("other"));
    let own = conf::conflist("net", CNI_VERSION, &[conf::percale(&bed)]);
    let (running, other) = (Attachment::new("running", &pod), Attachment::new("other", &other));
    let first = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let addresses = addresses(&first.add(&running).unwrap());
    assert_eq!(addresses.len(), 2);
    let lab = Lab { bed: &bed, running, pod, addresses, other, own };
    start_etcd(&bed);
    let scenarios = scenarios(&lab);
    let mut points: Vec<(usize, &str, u32)> = Vec::new();
    for (at, scenario) in scenarios.iter().enumerate() {
        points.extend(lab.points(scenario).into_iter().map(|(call, nth)| (at, call, nth)));
    }
    let all = points.len();
    let mut chance = Random::new(seed());
    for i in (1..all).rev() {
        let j = usize::try_from(chance.below(i as u64 + 1)).unwrap();
        points.swap(i, j);
    }
    let wanted = if bins::full() { 1000 } else { 40 };
    let begun = Instant::now();
    let hit = |(at, call, nth): &&(usize, &str, u32)| lab.kill(&scenarios[*at], call, *nth);
    let swept = points.iter().filter(hit).take(wanted).count();
    let mut kills = swept;
    while kills < wanted {
        let scenario = &scenarios[usize::try_from(chance.below(scenarios.len() as u64)).unwrap()];
        kills += usize::from(lab.kill_in_time(scenario, Duration::from_micros(chance.below(60_000))));
    }
    println!(
        "{kills} kills ({swept} of {all} points, {} at random instants), {:?}",
        kills - swept,
        begun.elapsed()
    );
    lab.restore("upgrade");
    lab.network().unwrap().del(&lab.running).unwrap();
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}
