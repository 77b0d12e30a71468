//! Imports of real directories, with crashes at every step, and beside host-local itself.

use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "PERCALE_TEST_HOSTLOCAL";

struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new(files: &[(&str, &str)]) -> Self {
        let bed = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(bed.path()).unwrap();
        for (name, content) in files {
            bed.write(name, content);
        }
        bed
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("net1")
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path().join(name), content).unwrap();
    }

    fn lock(&self) -> Directory {
        Directory::lock(&self.path(), soon()).unwrap().unwrap()
    }

    fn survey(&self) -> Survey {
        self.lock().survey().unwrap()
    }

    /// A whole import; what it would have stored.
    fn import(&self) -> Survey {
        let directory = self.lock();
        let survey = directory.survey().unwrap();
        directory.retire(&survey).unwrap();
        survey
    }

    fn glance(&self) -> Glance {
        glance(&self.path()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        names(&self.path()).unwrap().unwrap().into_iter().map(|name| name.into_string().unwrap()).collect()
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn lease(ip: &str, container: &str, ifname: Option<&str>) -> Lease {
    Lease { ip: ip.parse().unwrap(), container: container.into(), ifname: ifname.map(str::to_owned) }
}

/// As host-local 1.1 leaves it with two containers, one of them with both families, beside a
/// file of an old release and the traces of a full disk.
fn typical() -> Bed {
    Bed::new(&[
        ("lock", ""),
        ("last_reserved_ip.0", "10.88.0.4"),
        ("last_reserved_ip.1", "fd00::4"),
        ("10.88.0.2", "aaaa\r\neth0"),
        ("fd00::2", "aaaa\r\neth0"),
        ("10.88.0.3", "bbbb"),
        ("10.88.0.4", ""),
        ("10.88.0.9", "cccc\r\neth0\r\nwhat"),
        ("notes.txt", "do not delete"),
    ])
}

fn typical_leases() -> Vec<Lease> {
    vec![
        lease("10.88.0.2", "aaaa", Some("eth0")),
        lease("10.88.0.3", "bbbb", None),
        lease("fd00::2", "aaaa", Some("eth0")),
    ]
}

#[test]
fn a_survey_finds_every_lease_and_reports_the_rest() {
    let bed = typical();
    let survey = bed.survey();
    assert_eq!(survey.leases, typical_leases());
    let unclear: Vec<_> = survey.unclear.iter().map(|u| (u.file.as_str(), u.ip.is_some(), u.why)).collect();
    assert_eq!(
        unclear,
        [
            ("10.88.0.4", true, Reason::Empty),
            ("10.88.0.9", true, Reason::ExtraLines),
            ("notes.txt", false, Reason::NotALease)
        ]
    );
    assert_eq!(bed.names().len(), 9, "a survey changes nothing");
}

#[test]
fn an_import_happens_once_and_loses_nothing() {
    let bed = typical();
    assert_eq!(bed.glance(), Glance::Pending);
    bed.import();
    assert_eq!(bed.glance(), Glance::Done);
    let again = bed.import();
    assert!(again.imported_before && again.leases.is_empty());
    assert_eq!(
        bed.names(),
        [
            "10.88.0.4.not-imported-by-percale",
            "10.88.0.9.not-imported-by-percale",
            "imported-by-percale",
            "last_reserved_ip.0",
            "last_reserved_ip.1",
            "lock",
            "notes.txt"
        ]
    );
    let marker = Marker::decode(&fs::read(bed.path().join("imported-by-percale")).unwrap()).unwrap();
    assert_eq!(marker.leases, typical_leases(), "what the deleted files said is kept");
}

#[test]
fn an_absent_directory_is_no_error_and_is_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let path = directory(Some(dir.path()), "net1");
    assert_eq!(glance(&path).unwrap(), Glance::Absent);
    assert!(Directory::lock(&path, soon()).unwrap().is_none());
    assert!(!path.exists());
}

#[test]
fn an_empty_directory_is_imported_once_too() {
    let bed = Bed::new(&[]);
    assert!(bed.import().leases.is_empty());
    assert_eq!(bed.glance(), Glance::Done);
}

#[test]
fn what_host_local_does_later_is_noticed() {
    let bed = typical();
    bed.import();
    bed.write("10.88.0.2", "dddd\r\neth0");
    bed.write("10.88.0.7", "eeee\r\neth0");
    assert_eq!(bed.glance(), Glance::Changed);
    let survey = bed.survey();
    assert!(survey.imported_before);
    let later = [lease("10.88.0.2", "dddd", Some("eth0")), lease("10.88.0.7", "eeee", Some("eth0"))];
    assert_eq!(survey.leases, later);
    // A caller that takes these over as well is done with them.
    bed.import();
    assert_eq!(bed.glance(), Glance::Done);
    let marker = bed.lock().read_marker().unwrap().unwrap();
    assert_eq!(marker.leases.len(), 4, "of one address the newest: {:?}", marker.leases);
}

/// `retire` writes the draft, renames it to the marker, then removes or renames file by file:
/// each prefix of that is made by hand and the import repeated.
#[test]
fn a_crash_at_any_step_repeats_safely() {
    let files = [("10.88.0.2", "aaaa\r\neth0"), ("10.88.0.3", "bbbb"), ("10.88.0.4", "")];
    for left in 0..=files.len() {
        let bed = Bed::new(&files);
        let stored = bed.import().leases;
        for (name, content) in &files[files.len() - left..] {
            bed.write(name, content);
        }
        let again = bed.import();
        assert_eq!(again.leases, [], "{left} files left were offered again");
        assert_eq!((stored.len(), bed.glance()), (2, Glance::Done));
    }
    let bed = Bed::new(&files);
    bed.write(marker::DRAFT, "{\"version\":1,\"lea");
    assert_eq!(bed.import().leases.len(), 2, "a draft is no import");
    assert_eq!(bed.glance(), Glance::Done);
}

#[test]
fn two_spellings_of_one_address_are_one_lease_or_a_report() {
    let bed =
        Bed::new(&[("fd00::5", "aaaa\r\neth0"), ("FD00::5", "aaaa\r\neth0"), ("fd00:0::5", "bbbb\r\neth0")]);
    let survey = bed.import();
    assert_eq!(survey.leases.len(), 1);
    assert_eq!(survey.unclear.len(), 1);
    assert_eq!(survey.unclear[0].why, Reason::SecondOwner);
    assert_eq!(bed.glance(), Glance::Done);
}

#[test]
fn odd_files_neither_hang_nor_lead_astray() {
    let bed = Bed::new(&[("10.0.0.1", "aaaa\r\neth0")]);
    fs::create_dir(bed.path().join("10.0.0.2")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", bed.path().join("10.0.0.3")).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let fifo = bed.path().join("10.0.0.4");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let survey = bed.import();
    assert_eq!(survey.leases.len(), 1);
    assert!(survey.unclear.iter().all(|unclear| unclear.why == Reason::NotAFile), "{:?}", survey.unclear);
    assert_eq!((survey.unclear.len(), bed.glance()), (3, Glance::Done));
}

#[test]
fn a_damaged_marker_is_named_with_its_cure() {
    let bed = typical();
    bed.write(marker::NAME, "{\"version\":1,");
    let error = CniError::from(bed.lock().survey().unwrap_err());
    assert!(error.msg.contains(marker::NAME) && error.msg.contains("remove it"), "{error}");
    assert_eq!(error.code, Code::StoreDamaged);
}

#[test]
fn a_lock_that_host_local_keeps_is_waited_for_with_a_bound() {
    let bed = typical();
    let held = bed.lock();
    let started = Instant::now();
    let error = Directory::lock(&bed.path(), Deadline::after(Duration::from_millis(100))).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(CniError::from(error).code, Code::TryAgain);
    drop(held);
    bed.import();
}

/// The child's side of the test below: imports into the directory `store`, one file a lease,
/// created only where it is absent.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let directory = Directory::lock(&root.join("net1"), soon()).unwrap().unwrap();
    let survey = directory.survey().unwrap();
    for lease in &survey.leases {
        assert!(!survey.imported_before, "{lease:?} was offered after the import");
        write_synced(&root.join("store").join(lease.ip.to_string()), lease.container.as_bytes()).unwrap();
    }
    directory.retire(&survey).unwrap();
}

#[test]
fn killed_imports_end_with_every_lease_stored_once() {
    let rounds = if std::env::var_os("PERCALE_FULL").is_some() { 200 } else { 12 };
    for round in 0..rounds {
        let files: Vec<_> = (0..40).map(|n| (format!("10.0.0.{n}"), format!("id{n}\r\neth0"))).collect();
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let bed = Bed::new(&files);
        fs::create_dir(bed.dir.path().join("store")).unwrap();
        for attempt in 0.. {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "hostlocal::tests::child"]).env(CHILD, bed.dir.path());
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
            // Later and later, so that each round ends.
            std::thread::sleep(Duration::from_micros(1000 + round * 173 % 4000 + attempt * 900));
            let killed = child.try_wait().unwrap().is_none();
            let _ = child.kill();
            assert!(killed || child.wait().unwrap().success());
            child.wait().unwrap();
            if bed.glance() == Glance::Done {
                break;
            }
        }
        let stored: BTreeSet<_> =
            fs::read_dir(bed.dir.path().join("store")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(stored.len(), 40, "round {round}");
        let marker = bed.lock().read_marker().unwrap().unwrap();
        assert_eq!(marker.leases.len(), 40, "round {round}: files were deleted before they were listed");
    }
}

/// host-local itself (Debian's containernetworking-plugins) writes the directory, waits for our lock, and
/// is noticed afterwards.
#[test]
fn beside_host_local_itself() {
    let bed = Bed { dir: tempfile::tempdir().unwrap() };
    let id = |n: usize| format!("container-{n}");
    for n in 0..3 {
        assert!(host_local(&bed, "ADD", &id(n)).wait().unwrap().success());
    }
    let directory = bed.lock();
    let mut waiting = host_local(&bed, "ADD", "late");
    let survey = directory.survey().unwrap();
    assert_eq!((survey.leases.len(), survey.unclear.len()), (6, 0), "{survey:?}");
    assert!(survey.leases.iter().all(|lease| lease.ifname.as_deref() == Some("eth0")));
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_wait().unwrap().is_none(), "host-local does not respect our lock");
    directory.retire(&survey).unwrap();
    assert_eq!(bed.glance(), Glance::Done);
    drop(directory);
    assert!(waiting.wait().unwrap().success());
    assert_eq!(bed.glance(), Glance::Changed);
    assert_eq!(bed.survey().leases.len(), 2);
    assert!(host_local(&bed, "DEL", "late").wait().unwrap().success());
    assert_eq!(bed.glance(), Glance::Done, "host-local and our marker do not disturb each other");
}

fn host_local(bed: &Bed, verb: &str, id: &str) -> std::process::Child {
    let conf = serde_json::json!({"cniVersion": "1.0.0", "name": "net1", "type": "t", "ipam": {
        "type": "host-local", "dataDir": bed.dir.path(),
        "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00:77::/64"}]]}});
    let env = [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", id),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/x"),
        ("CNI_PATH", "/x"),
    ];
    let mut command = Command::new("/usr/lib/cni/host-local");
    let mut child =
        command.envs(env).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(conf.to_string().as_bytes()).unwrap();
    child
}
