//! The plugin served by `percaled`: what it does, and what happens when it is not there, is another's,
//! or dies.

#![allow(clippy::unwrap_used)]

use e2e::bed::wait_for;
use e2e::clean::{held, kernel_is_clean, nothing_held};
use e2e::cnirun::addresses;
use e2e::containerd::Containerd;
use e2e::daemon::{Daemon, Start, asking, socket};
use e2e::random::{Random, seed};
use e2e::strace::kill_at;
use e2e::{Attachment, Bed, Failure, Netns, Network, conf};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{IoSlice, Read as _, Write as _};
use std::net::IpAddr;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn network(bed: &Bed) -> Network<'_> {
    Network::new(bed, "net", vec![asking(bed, conf::percale(bed))])
}

fn last_log_line(bed: &Bed) -> String {
    let log = std::fs::read_to_string(bed.path("log/cni.log")).unwrap();
    log.lines().last().unwrap().to_owned()
}

// REQ: D-16
#[test]
fn the_daemon_serves_every_verb_and_the_plugin_writes_the_log() {
    let bed = Bed::new("dverbs");
    let daemon = Daemon::start(&bed);
    let network = network(&bed);
    let (_, reasons) = daemon.get(9099, "/readiness");
    // Whether the node is on a network is another matter.
    assert!(!reasons.contains("socket:") && !reasons.contains("store:"), "{reasons}");
    assert_eq!(daemon.get(9099, "/liveness").0, 204);
    assert_eq!(std::fs::metadata(socket(&bed)).unwrap().permissions().mode() & 0o777, 0o600);
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    network.status().unwrap();
    let result = network.add(&pod).unwrap();
    let line = last_log_line(&bed);
    for part in
        ["verb=ADD result=ok", "container=c1", "wire_ms=", "total_ms=", &addresses(&result)[0].to_string()]
    {
        assert!(line.contains(part), "{part} is missing in: {line}");
    }
    assert_eq!(network.add(&pod).unwrap(), result, "an ADD that is repeated");
    network.check(&pod).unwrap();
    held(&bed, 2);
    network.gc(&[&pod]).unwrap();
    held(&bed, 2);
    network.del(&pod).unwrap();
    network.del(&pod.without_netns()).unwrap();
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
    assert_eq!(daemon.served(), 7.0);
    let gone = network.add(&Attachment::new("c2", &ns).named("lo")).unwrap_err();
    assert_eq!(gone.code(), Some(104), "{gone}");
    assert!(last_log_line(&bed).contains("result=error"), "{}", last_log_line(&bed));
    network.del(&Attachment::new("c2", &ns).named("lo")).unwrap();
    nothing_held(&bed);
}

/// What it answers is what the plugin alone answers.
#[test]
fn results_are_the_same_with_and_without_it() {
    let bed = Bed::new("dsame");
    let (with, without) = (network(&bed), Network::new(&bed, "net", vec![conf::percale(&bed)]));
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let alone = without.add(&pod).unwrap();
    let daemon = Daemon::start(&bed);
    assert_eq!(with.add(&pod).unwrap(), alone, "an ADD that the plugin did is found done");
    daemon.stop();
    assert!(!socket(&bed).exists(), "the socket goes with the daemon");
    assert_eq!(with.add(&pod).unwrap(), alone);
    with.del(&pod).unwrap();
    nothing_held(&bed);
}

// REQ: C-14
#[test]
fn a_daemon_of_another_store_or_node_leaves_the_request_to_the_plugin() {
    let bed = Bed::new("dother");
    let elsewhere = bed.path("elsewhere").display().to_string();
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    for (args, why) in [(["--state-dir", &elsewhere], "store"), (["--node-name", "somebody-else"], "node")] {
        let daemon = Daemon::start_as(&bed, &Start::with_args(&args));
        let mut network = network(&bed);
        network.plugins[0]["nodename"] = json!("this-node");
        network.add(&pod).unwrap();
        let line = last_log_line(&bed);
        assert!(line.contains("percaled refused") && line.contains(why), "{line}");
        held(&bed, 2);
        network.del(&pod).unwrap();
        nothing_held(&bed);
        assert_eq!(daemon.served(), 0.0);
        daemon.stop();
    }
}

// REQ: D-16
#[test]
fn one_daemon_per_host() {
    let bed = Bed::new("done");
    let first = Daemon::start(&bed);
    let second =
        Daemon::launch(&bed, &Start::with_args(&["--health-addr", "127.0.0.1:9199", "--metrics-addr", ""]));
    wait_for("the second waits", || second.log().matches("percaled runs").count() == 1);
    let listens = || bed.host.run(|| TcpStream::connect(("127.0.0.1", 9199)).is_ok());
    wait_for("the second tells of its health", listens);
    let (verdict, reasons) = second.get(9199, "/readiness");
    assert!(verdict == 503 && reasons.contains("start:"), "{verdict} {reasons}");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    network(&bed).add(&pod).unwrap();
    assert_eq!(first.served(), 1.0);
    first.stop();
    wait_for("the second serves", || socket(&bed).exists());
    network(&bed).del(&pod).unwrap();
    nothing_held(&bed);
    second.stop();
}

/// Whatever the socket's mode has become.
// REQ: D-16
#[test]
fn a_user_who_is_not_root_is_not_heard() {
    let bed = Bed::new("dnobody");
    let daemon = Daemon::start(&bed);
    std::fs::set_permissions(socket(&bed), std::fs::Permissions::from_mode(0o666)).unwrap();
    let ask = "import os, socket, sys\nos.chdir(sys.argv[1])\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\n\
        s.settimeout(10)\ns.connect('percaled.sock')\ntry: s.send(b'x' * 64)\nexcept BrokenPipeError: pass\n\
        try: print(len(s.recv(64)))\nexcept ConnectionResetError: print(0)";
    let dir = socket(&bed).parent().unwrap().to_owned();
    let told = e2e::netns::must(bed.host.command("python3").args(["-c", ask]).arg(&dir));
    assert_eq!(told, b"0\n", "the connection is closed without a word");
    wait_for("it is in the log", || daemon.log().contains("refused a connection of a user who is not root"));
    assert_eq!(daemon.served(), 0.0);
}

/// It sees neither the runtime's mounts nor its processes: only descriptors reach it.
// REQ: D-16
#[test]
fn it_works_in_mount_and_pid_namespaces_of_its_own() {
    let bed = Bed::new("dspaces");
    let hide = "mount -t tmpfs none /run/netns && mount -t tmpfs none /var/lib/cni; exec \"$@\"";
    let wrap =
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", hide, "sh"];
    let daemon = Daemon::start_as(&bed, &Start::wrapped(wrap.map(Into::into).to_vec()));
    let network = network(&bed);
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let result = network.add(&pod).unwrap();
    assert_eq!(ns.link_names("eth0"), ["eth0"], "in the pod's namespace: {result}");
    network.check(&pod).unwrap();
    network.del(&pod).unwrap();
    assert_eq!(daemon.served(), 3.0);
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}

/// Calls of a request's thread, and how often it makes them at most.
const SIDE_EFFECTS: [(&str, u32); 6] =
    [("sendmsg", 1), ("sendto", 12), ("pwrite64", 6), ("fdatasync", 3), ("setns", 3), ("flock", 14)];

/// Between doing and answering, and at every other side effect: a new daemon finds what is done.
// REQ: C-16
// REQ: A-16
#[test]
fn an_add_whose_daemon_dies_at_any_point_is_done_once() {
    let bed = Bed::new("ddies");
    let network = network(&bed);
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    // The host's first call makes the store, which is another test's matter.
    let first = Daemon::start(&bed);
    network.add(&pod).unwrap();
    network.del(&pod).unwrap();
    drop(first);
    let mut deaths = 0;
    for (call, times) in SIDE_EFFECTS {
        // In all points only with the full counts: each is several starts of the daemon.
        for nth in (1..=times).step_by(if e2e::bins::full() { 1 } else { 3 }) {
            let point = format!("{call} number {nth}");
            let result = add_while_dying(&bed, &network, &pod, kill_at(call, nth), &mut deaths);
            let result = result.unwrap_or_else(|e| panic!("ADD, the daemon killed at {point}: {e}"));
            assert_eq!(addresses(&result).len(), 2);
            let last = Daemon::start(&bed);
            held(&bed, 2);
            network.check(&pod).unwrap_or_else(|e| panic!("CHECK, the daemon killed at {point}: {e}"));
            network.del(&pod).unwrap_or_else(|e| panic!("DEL, the daemon killed at {point}: {e}"));
            nothing_held(&bed);
            last.stop();
        }
    }
    println!("{deaths} deaths of the daemon");
    assert!(deaths >= 5, "only {deaths}: does strace work?");
}

/// An ADD whose daemon runs under `wrap`; another one is started when it dies.
fn add_while_dying(
    bed: &Bed,
    network: &Network,
    pod: &Attachment,
    wrap: Vec<std::ffi::OsString>,
    deaths: &mut usize,
) -> Result<Value, Failure> {
    let dying = Daemon::launch(bed, &Start::wrapped(wrap));
    wait_for("percaled listens or is dead", || dying.has_ended() || dying.listens());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let adding = scope.spawn(|| {
            let result = network.add(pod);
            done.store(true, Ordering::Relaxed);
            result
        });
        wait_for("the daemon or the ADD ends", || done.load(Ordering::Relaxed) || dying.has_ended());
        let next = dying.has_ended().then(|| Daemon::start(bed));
        *deaths += usize::from(next.is_some());
        adding.join().unwrap()
    })
}

fn many(bed: &Bed, count: usize, spaces: &mut Vec<Netns>) -> Vec<Attachment> {
    spaces.extend((0..count).map(|i| bed.netns(&format!("p{i}"))));
    spaces.iter().enumerate().map(|(i, ns)| Attachment::new(&format!("c{i}"), ns)).collect()
}

fn at_once<T: Send>(pods: &[Attachment], f: impl Fn(&Attachment) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let running: Vec<_> = pods.iter().map(|pod| scope.spawn(|| f(pod))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn assert_distinct(results: &[Value]) {
    let all: Vec<IpAddr> = results.iter().flat_map(addresses).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "an address was given twice");
}

// REQ: A-15
#[test]
fn a_hundred_and_ten_at_once_share_commits_and_deletions() {
    let bed = Bed::new("dmany");
    let daemon = Daemon::start(&bed);
    let network = network(&bed);
    let mut spaces = Vec::new();
    let pods = many(&bed, 110, &mut spaces);
    let begun = Instant::now();
    let results = at_once(&pods, |pod| network.add(pod).unwrap());
    let added = begun.elapsed();
    assert_distinct(&results);
    held(&bed, 220);
    let commits = daemon.metric("percale_ipam_commits_total");
    let begun = Instant::now();
    at_once(&pods, |pod| network.del(pod).unwrap());
    let deleted = begun.elapsed();
    kernel_is_clean(&bed.host);
    nothing_held(&bed);
    let deletions = daemon.metric("percale_link_deletions_total");
    println!(
        "110 ADDs {added:?} in {commits} commits, 110 DELs {deleted:?} with {deletions} deletions of links"
    );
    assert!(commits < 110.0, "{commits} commits");
    assert!(deletions <= 10.0, "{deletions} deletions");
    assert_eq!(daemon.served(), 220.0);
}

/// Pods start and stop while the daemon is killed again and again, and started again.
// REQ: C-16
// REQ: A-16
#[test]
fn pods_start_while_the_daemon_is_killed_at_random() {
    let kills = if e2e::bins::full() { 100 } else { 8 };
    let bed = Bed::new("dchurn");
    let rounds = churn(&bed, || {
        let mut chance = Random::new(seed());
        for _ in 0..kills {
            let daemon = Daemon::start(&bed);
            thread::sleep(Duration::from_millis(20 + chance.below(300)));
            daemon.kill();
            thread::sleep(Duration::from_millis(chance.below(50)));
        }
        Daemon::start(&bed)
    });
    println!("{kills} kills, {rounds} pods, seed {}", seed());
}

/// As an upgrade does: the old one is told to stop, the new one starts at once.
// REQ: I-07
#[test]
fn pods_start_while_the_daemon_is_upgraded() {
    let upgrades = if e2e::bins::full() { 40 } else { 5 };
    let bed = Bed::new("dupgrade");
    let rounds = churn(&bed, || {
        let mut daemon = Daemon::start(&bed);
        for _ in 0..upgrades {
            thread::sleep(Duration::from_millis(200));
            daemon.terminate();
            let next = Daemon::launch(&bed, &Start::default());
            daemon.stopped();
            daemon = next;
        }
        daemon
    });
    println!("{upgrades} upgrades, {rounds} pods");
}

/// Eight add and delete pods of their own while `disturb` runs: every call succeeds, no address has two
/// owners, nothing is left. The answer is how many pods there were.
fn churn<'a>(bed: &'a Bed, disturb: impl FnOnce() -> Daemon<'a>) -> usize {
    let network = network(bed);
    let (stop, rounds, owned) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(BTreeSet::new()));
    let spaces: Vec<Netns> = (0..8).map(|i| bed.netns(&format!("p{i}"))).collect();
    let _last = thread::scope(|scope| {
        for (i, ns) in spaces.iter().enumerate() {
            let (network, stop, rounds, owned) = (&network, &stop, &rounds, &owned);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = rounds.fetch_add(1, Ordering::Relaxed);
                    let pod = Attachment::new(&format!("w{i}n{number}"), ns);
                    let result = network.add(&pod).unwrap_or_else(|e| panic!("ADD: {e}"));
                    let ips = addresses(&result);
                    ips.iter().for_each(|ip| assert!(owned.lock().unwrap().insert(*ip), "{ip} given twice"));
                    ips.iter().for_each(|ip| assert!(owned.lock().unwrap().remove(ip)));
                    network.del(&pod).unwrap_or_else(|e| panic!("DEL: {e}"));
                }
            });
        }
        let last = disturb();
        stop.store(true, Ordering::Relaxed);
        last
    });
    nothing_held(bed);
    kernel_is_clean(&bed.host);
    rounds.into_inner()
}

/// A plugin of the version before: it says what is recorded in testdata, over a socket of its own making.
fn ask_as_version_1(bed: &Bed, verb: &str, config: &Value, pod: &Attachment) -> Value {
    let ask = json!({
        "version": 1, "program": "percale", "left_ms": 30000,
        "store": format!("embedded:{}", bed.path("state/store").display()),
        "env": {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": pod.container, "CNI_IFNAME": pod.ifname,
            "CNI_NETNS": pod.netns, "CNI_PATH": bed.plugin_dir(),
        },
        "stdin": config.to_string(),
    });
    let ask = ask.to_string().into_bytes();
    let mut stream = UnixStream::connect(socket(bed)).unwrap();
    let netns = std::fs::File::open(&pod.netns).unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let fds = [netns.as_fd()];
    rights.push(SendAncillaryMessage::ScmRights(&fds));
    let head = u32::try_from(ask.len()).unwrap().to_be_bytes();
    let sent = sendmsg(&stream, &[IoSlice::new(&head)], &mut rights, SendFlags::empty()).unwrap();
    assert_eq!(sent, 4);
    stream.write_all(&ask).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    serde_json::from_slice(&answer[4..]).unwrap()
}

// REQ: I-07
#[test]
fn plugins_of_the_version_before_are_served_under_load() {
    let bed = Bed::new("dold");
    let daemon = Daemon::start(&bed);
    let network = network(&bed);
    let mut spaces = Vec::new();
    let pods = many(&bed, 8, &mut spaces);
    let config = network.config(&network.plugins[0], None);
    let rounds = 5;
    at_once(&pods, |pod| {
        for round in 0..rounds {
            // Old and new take turns, so that each finds what the other did.
            let old = (round + pod.container.len()) % 2 == 0;
            if old {
                let answer = ask_as_version_1(&bed, "ADD", &config, pod);
                assert_eq!(answer["failed"], false, "{answer}");
                let result: Value = serde_json::from_str(answer["stdout"].as_str().unwrap()).unwrap();
                assert_eq!(network.add(pod).unwrap(), result);
                network.del(pod).unwrap();
            } else {
                network.add(pod).unwrap();
                let answer = ask_as_version_1(&bed, "DEL", &config, pod);
                assert_eq!((&answer["failed"], &answer["stdout"]), (&json!(false), &json!("")), "{answer}");
            }
        }
    });
    nothing_held(&bed);
    assert!(daemon.served() >= 80.0);
}

/// A daemon of the version before, or of one that is not known at all: it refuses the newer request by
/// the form that all versions share.
fn old_daemon(bed: &Bed, speaks: &'static [u32]) -> UnixListener {
    std::fs::create_dir_all(bed.path("run")).unwrap();
    let _ = std::fs::remove_file(socket(bed));
    let listener = UnixListener::bind(socket(bed)).unwrap();
    let serving = listener.try_clone().unwrap();
    let plugin = bed.plugin_dir().join("percale");
    let host = bed.host.path().to_owned();
    thread::spawn(move || {
        for stream in serving.incoming().flatten() {
            answer_as(stream, speaks, &plugin, &host);
        }
    });
    listener
}

fn answer_as(mut stream: UnixStream, speaks: &[u32], plugin: &Path, host: &Path) {
    let mut head = [0; 4];
    if stream.read_exact(&mut head).is_err() {
        return;
    }
    let mut ask = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut ask).unwrap();
    let ask: Value = serde_json::from_slice(&ask).unwrap();
    let version = ask["version"].as_u64().unwrap();
    let answer = match speaks.iter().any(|spoken| u64::from(*spoken) == version) && version == 1 {
        false => json!({"refused": format!("version {version} is not spoken here"), "speaks": speaks}),
        true => {
            // What it does is what the plugin does by itself.
            let mut config: Value = serde_json::from_str(ask["stdin"].as_str().unwrap()).unwrap();
            config["daemon_socket"] = json!("");
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", host.display())).arg(plugin);
            for (name, value) in ask["env"].as_object().unwrap() {
                command.env(name, value.as_str().unwrap());
            }
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
            let out = child.wait_with_output().unwrap();
            let stdout = String::from_utf8(out.stdout).unwrap();
            json!({"version": 1, "stdout": stdout, "failed": !out.status.success()})
        }
    };
    let answer = answer.to_string().into_bytes();
    stream.write_all(&u32::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&answer).unwrap();
}

// REQ: I-07
#[test]
fn a_daemon_of_the_version_before_is_asked_in_its_words_and_an_unknown_one_not_at_all() {
    let bed = Bed::new("dolder");
    let network = network(&bed);
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    for (speaks, by_daemon) in [(&[0, 1][..], true), (&[7, 8][..], false)] {
        let speaks: &'static [u32] = speaks;
        let _listener = old_daemon(&bed, speaks);
        network.add(&pod).unwrap();
        held(&bed, 2);
        // The version before does not say where the time went, the plugin itself does.
        assert_eq!(last_log_line(&bed).contains("wire_ms="), !by_daemon, "{}", last_log_line(&bed));
        network.check(&pod).unwrap();
        network.del(&pod).unwrap();
        // Under load too.
        let mut spaces = Vec::new();
        let pods = many(&bed, 8, &mut spaces);
        at_once(&pods, |pod| {
            for _ in 0..3 {
                network.add(pod).unwrap();
                network.del(pod).unwrap();
            }
        });
        let missing = Attachment::new("c2", &ns).named("lo");
        assert_eq!(network.add(&missing).unwrap_err().code(), Some(104));
        network.del(&missing).unwrap();
        nothing_held(&bed);
        kernel_is_clean(&bed.host);
    }
}

/// containerd never calls GC: what it forgot is freed when both proofs are there, and nothing else.
// REQ: A-16
#[test]
fn what_the_runtime_forgot_is_freed_on_two_proofs() {
    let bed = Bed::new("dgc");
    let sock = bed.path("c.sock").display().to_string();
    let gc = ["--gc-interval", "1", "--gc-grace", "2", "--cri-socket", &sock];
    let daemon = Daemon::start_as(&bed, &Start::with_args(&gc));
    let mut containerd = Containerd::start(&bed, &[asking(&bed, conf::percale(&bed))]);
    let living = containerd.run_one("living", &[]);
    let orphan = bed.netns("orphan");
    let name = containerd.network.clone();
    let network = Network::new(&bed, &name, vec![asking(&bed, conf::percale(&bed))]).at_version("1.0.0");
    // Unknown to the runtime, but its namespace lives.
    let unknown = bed.netns("unknown");
    network.add(&Attachment::new("unknown-to-the-runtime", &unknown)).unwrap();
    network.add(&Attachment::new("forgotten", &orphan)).unwrap();
    held(&bed, 6);
    drop(orphan);
    wait_for("the forgotten one is freed", || daemon.metric("percale_ipam_gc_freed_total") >= 2.0);
    held(&bed, 4);
    // Time for several looks at those of which only one proof is there.
    thread::sleep(Duration::from_secs(4));
    held(&bed, 4);
    assert_eq!(daemon.metric("percale_ipam_gc_freed_total"), 2.0);
    containerd.stop(std::slice::from_ref(&living));
    containerd.remove(&[living]);
    network.del(&Attachment::new("unknown-to-the-runtime", &unknown)).unwrap();
    nothing_held(&bed);
}
