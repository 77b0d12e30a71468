//! What an operator finds in the file, also when many processes write and rotate at once.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

const CHILD: &str = "PERCALE_TEST_LOG_CHILD";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn small(path: &Path, bytes: u64, count: usize) -> Log {
    let limits = rotate::Limits { bytes, age: 30 * DAY, count };
    Log::new(Level::Info, Some(Rotation::new(path.to_owned(), limits)))
}

fn settings(path: &Path) -> LogSettings {
    LogSettings { path: Some(path.to_owned()), ..LogSettings::default() }
}

/// The lines of all files in `dir`, file by file.
fn lines(dir: &Path) -> Vec<String> {
    let text = |path: PathBuf| fs::read_to_string(path).unwrap();
    let files = fs::read_dir(dir).unwrap().map(|entry| text(entry.unwrap().path()));
    files.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_failed_call_is_in_the_file_with_its_container_pod_and_step() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/cni.log");
    let failure = Failure {
        code: 11,
        step: "ipam",
        msg: "the IPAM lock is held: try again".into(),
        details: "flock /run/percale/ipam.lock: timed out".into(),
    };
    let mut call = Call {
        verb: "ADD".into(),
        network: "k8s".into(),
        container: "4f0c".into(),
        ifname: "eth0".into(),
        pod: "default/web-0".into(),
        total: Some(Duration::from_micros(10_001_234)),
        failure: Some(failure),
        ..Call::default()
    };
    call.phase("lock", Duration::from_millis(10_000));
    Log::open(&settings(&path)).call(&call);
    let text = fs::read_to_string(&path).unwrap();
    let rest = " error verb=ADD result=error code=11 step=ipam network=k8s container=4f0c ifname=eth0 \
                pod=default/web-0 total_ms=10001.23 lock_ms=10000.00 error=\"the IPAM lock is held: try again\" \
                details=\"flock /run/percale/ipam.lock: timed out\"\n";
    assert_eq!(&text["2026-11-21T22:00:03.417Z".len()..], rest);
}

#[test]
fn a_good_call_is_one_line_at_info() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cni.log");
    let call = Call {
        verb: "ADD".into(),
        container: "c1".into(),
        addresses: vec!["10.0.0.1/32".into(), "fd00::1/128".into()],
        ..Call::default()
    };
    Log::open(&settings(&path)).call(&call);
    Log::open(&LogSettings { level: Level::Error, ..settings(&path) }).call(&call);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1, "log_level error hides what went well");
    assert!(text.ends_with("Z info verb=ADD result=ok container=c1 addresses=10.0.0.1/32,fd00::1/128\n"));
}

#[test]
fn levels_read_as_calico_reads_them() {
    for (text, level) in [("DEBUG", Level::Debug), ("Info", Level::Info), ("error", Level::Error)] {
        assert_eq!(Level::from_config(text), level);
    }
    for odd in ["", "warning", "none", "3"] {
        assert_eq!(Level::from_config(odd), Level::Info);
    }
}

#[test]
fn rotation_names_counts_and_prunes_as_lumberjack() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cni.log");
    for stranger in
        ["cni-2001-01-01T00-00-00.000.log.gz", "cni-notes.log", "other-2001-01-01T00-00-00.000.log"]
    {
        fs::write(dir.path().join(stranger), "").unwrap();
    }
    fs::write(dir.path().join("cni-2001-01-01T00-00-00.000.log"), "too old").unwrap();
    let log = small(&path, 200, 3);
    for n in 0..40 {
        log.line(
            Level::Info,
            &[("n", &n), ("text", &"about one hundred bytes a line, so that two fill a file")],
        );
    }
    let mut names = names(dir.path());
    let strangers =
        ["cni-2001-01-01T00-00-00.000.log.gz", "cni-notes.log", "other-2001-01-01T00-00-00.000.log"];
    names.retain(|name| !strangers.contains(&name.as_str()));
    assert_eq!(names.len(), 4, "three rotated files and the current one: {names:?}");
    assert_eq!(names.last().unwrap(), "cni.log");
    assert!(names.iter().all(|name| !name.contains("2001") && name.ends_with(".log")), "{names:?}");
    assert!(fs::read_to_string(&path).unwrap().contains("n=39"));
    assert!(fs::metadata(&path).unwrap().len() <= 200);
}

#[test]
fn old_files_go_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cni.log");
    let now = SystemTime::now();
    let rotation = Rotation::new(path, rotate::Limits { bytes: 10, age: 3 * DAY + DAY / 2, count: 100 });
    for days in (0..10).rev() {
        rotation.append(b"more than ten bytes\n", now - days * DAY).unwrap();
    }
    assert_eq!(names(dir.path()).len(), 4 + 1, "today's, and those of up to three days ago");
}

#[test]
fn zero_means_calicos_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cni.log");
    fs::File::create(&path).unwrap().set_len((100 << 20) - 10).unwrap();
    Log::open(&settings(&path)).line(Level::Info, &[("k", &"v")]);
    assert_eq!(names(dir.path()).len(), 2, "rotated at 100 MB");
}

#[test]
fn a_log_that_cannot_be_written_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [dir.path().to_owned(), fifo, file.join("below"), "/proc/none/cni.log".into(), "".into()] {
        Log::open(&settings(&path)).line(Level::Info, &[("k", &"v")]);
    }
}

/// The child's side of the tests below; does nothing in the parent's run.
#[test]
fn child() {
    let Ok(role) = std::env::var(CHILD) else { return };
    let parts: Vec<&str> = role.split(' ').collect();
    let [path, bytes, id, lines] = parts[..] else { panic!("bad role {role}") };
    let log = small(Path::new(path), bytes.parse().unwrap(), usize::MAX);
    for n in 0..lines.parse::<u32>().unwrap() {
        log.line(
            Level::Info,
            &[("id", &id), ("n", &n), ("pad", &"x".repeat(n as usize * 37 % 900)), ("end", &"!")],
        );
    }
}

fn spawn_child(path: &Path, bytes: u64, id: usize, lines: u32) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "log::tests::child"])
        .env(CHILD, format!("{} {bytes} {id} {lines}", path.display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn fifty_processes_lose_and_tear_no_line_while_rotating() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cni.log");
    let (processes, each) = (50, 60);
    let children: Vec<_> = (0..processes).map(|id| spawn_child(&path, 3000, id, each)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut seen = BTreeMap::new();
    for line in lines(dir.path()) {
        assert!(line.starts_with("20") && line.ends_with("end=!"), "torn line: {line}");
        let id = line.split(" id=").nth(1).unwrap().split(" pad=").next().unwrap().to_owned();
        assert_eq!(seen.insert(id, ()), None, "line twice: {line}");
    }
    assert_eq!(seen.len(), processes * each as usize);
    let files = names(dir.path()).len();
    // 500 if no line were in flight at a rotation; the processes share few cores.
    assert!(files > 20, "only {files} files: rotation did not happen at its limit");
}

#[test]
fn threads_may_share_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let limits = rotate::Limits { bytes: 500, age: DAY, count: usize::MAX };
    let file = Rotation::new(dir.path().join("cni.log"), limits);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..100).for_each(|_| file.append(b"a line\n", SystemTime::now()).unwrap()));
        }
    });
    assert_eq!(lines(dir.path()), vec!["a line"; 800]);
}

#[test]
fn a_bad_file_is_reported_once_on_stderr() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "log::tests::child", "--nocapture"]).env(CHILD, "/proc/none/cni.log 1000 7 5");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.matches("cannot write the log file").count(), 1, "{text}");
    assert_eq!(text.matches(" id=7 ").count(), 5, "{text}");
}
