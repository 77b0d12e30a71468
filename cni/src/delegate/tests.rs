//! Real child processes: small shell scripts in place of a plugin.

use super::*;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

struct Bed {
    dir: tempfile::TempDir,
    log: Log,
}

impl Bed {
    /// A CNI_PATH with one plugin `p`, a shell script.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        install(&dir.path().join("p"), script);
        let settings = crate::log::LogSettings { path: Some(dir.path().join("log")), ..Default::default() };
        Self { dir, log: Log::open(&settings) }
    }

    fn run(&self, verb: &str, stdin: &[u8], limit: Duration) -> Result<Option<Value>, DelegateError> {
        let what = Invocation {
            verb,
            plugin: "p",
            paths: self.dir.path().to_str().unwrap(),
            env: &[("CNI_CONTAINERID", "c1")],
            stdin,
            deadline: Deadline::after(limit),
        };
        run(&what, &self.log)
    }

    fn add(&self) -> Result<Option<Value>, DelegateError> {
        self.run("ADD", b"{}", Duration::from_secs(20))
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// Written by a child: were the file ever open for writing here, another test's fork could
/// keep it so, and running it would fail (ETXTBSY).
fn install(path: &Path, script: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

fn code(error: DelegateError) -> u32 {
    CniError::from(error).code.number()
}

#[test]
fn the_plugin_gets_environment_and_stdin_and_its_result_comes_back() {
    let bed = Bed::new(
        r#"read -r conf; echo "{\"verb\":\"$CNI_COMMAND\",\"id\":\"$CNI_CONTAINERID\",\"conf\":$conf}""#,
    );
    let result = bed.run("CHECK", b"{\"name\":\"n\"}\n", Duration::from_secs(20)).unwrap().unwrap();
    assert_eq!(result, serde_json::json!({"verb": "CHECK", "id": "c1", "conf": {"name": "n"}}));
}

#[test]
fn silence_is_a_result_too() {
    assert_eq!(Bed::new("cat >/dev/null; echo").add().unwrap(), None);
}

#[test]
fn the_plugins_own_error_is_kept_whole() {
    let bed = Bed::new(r#"echo '{"cniVersion":"1.0.0","code":111,"msg":"no","details":"because"}'; exit 1"#);
    let error = CniError::from(bed.add().unwrap_err());
    assert_eq!((error.code, error.msg.as_str()), (Code::Other(111), "no"));
    assert_eq!(error.details.as_deref(), Some("because"));
}

#[test]
fn a_plugin_that_dies_without_a_word_is_named_with_its_stderr() {
    let bed = Bed::new("echo 'broken pipe to the moon' >&2; echo garbage; kill -9 $$");
    let error = CniError::from(bed.add().unwrap_err());
    assert_eq!(error.code, Code::Delegate);
    assert!(error.msg.contains("/p failed") && error.msg.contains("signal: 9"), "{error}");
    assert_eq!(error.details.as_deref(), Some("broken pipe to the moon"));
    assert!(bed.logged().contains("plugin=p stderr=\"broken pipe to the moon\""), "{}", bed.logged());
}

#[test]
fn garbage_is_shown() {
    let error = Bed::new("echo OK").add().unwrap_err();
    assert!(error.to_string().contains("\"OK\""), "{error}");
    assert_eq!(code(error), 106);
}

#[test]
fn a_missing_plugin_names_the_field_and_the_path() {
    let bed = Bed::new("");
    let paths = format!("{}::/none", bed.dir.path().display());
    let error = find("host-remote", &paths).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("ipam.type") && text.contains("host-remote") && text.contains(&paths), "{text}");
    assert_eq!(code(error), 7);
}

#[test]
fn a_type_is_never_a_path() {
    let bed = Bed::new("");
    let paths = bed.dir.path().to_str().unwrap();
    for name in ["", ".", "..", "../p", "/bin/sh", "a/p", "p\0"] {
        assert!(matches!(find(name, paths), Err(DelegateError::BadName { .. })), "{name:?}");
    }
    assert_eq!(find("p", paths).unwrap(), bed.dir.path().join("p"));
}

#[test]
fn the_first_directory_that_has_the_file_wins() {
    let (one, two) = (Bed::new("echo 1"), Bed::new("echo 2"));
    std::fs::create_dir(one.dir.path().join("q")).unwrap();
    symlink(two.dir.path().join("p"), two.dir.path().join("q")).unwrap();
    let paths = format!("{}:{}", one.dir.path().display(), two.dir.path().display());
    assert_eq!(find("p", &paths).unwrap(), one.dir.path().join("p"));
    assert_eq!(find("q", &paths).unwrap(), two.dir.path().join("q"), "a directory is no plugin");
}

#[test]
fn a_file_that_cannot_be_executed_is_an_error_that_names_it() {
    let bed = Bed::new("");
    std::fs::write(bed.dir.path().join("q"), "").unwrap();
    let what = Invocation {
        verb: "ADD",
        plugin: "q",
        paths: bed.dir.path().to_str().unwrap(),
        env: &[],
        stdin: b"",
        deadline: Deadline::after(Duration::from_secs(20)),
    };
    let error = CniError::from(run(&what, &bed.log).unwrap_err());
    assert!(error.msg.contains("/q") && error.details.is_some(), "{error}");
}

#[test]
fn megabytes_both_ways_do_not_lock_up() {
    // 600 KB in, the same out, and 2 MB of stderr in between, each far above a pipe's 64 KB.
    let bed = Bed::new("head -c 2000000 /dev/zero | tr '\\0' 'e' >&2; cat");
    let stdin = serde_json::to_vec(&vec!["x".repeat(99); 6000]).unwrap();
    let result = bed.run("ADD", &stdin, Duration::from_secs(30)).unwrap().unwrap();
    assert_eq!(result.as_array().unwrap().len(), 6000);
}

#[test]
fn a_plugin_need_not_read() {
    let stdin = vec![b' '; 1 << 20];
    let result = Bed::new("exec <&-; echo '{}'").run("ADD", &stdin, Duration::from_secs(20));
    assert_eq!(result.unwrap(), Some(serde_json::json!({})));
}

#[test]
fn an_endless_answer_is_stopped() {
    assert!(matches!(Bed::new("exec yes").add(), Err(DelegateError::TooMuch { .. })));
}

#[test]
fn endless_stderr_ends_at_the_deadline() {
    let bed = Bed::new("exec yes why >&2");
    let result = bed.run("ADD", b"", Duration::from_millis(300));
    assert!(matches!(result, Err(DelegateError::Late { .. })));
    let logged = bed.logged();
    assert_eq!(logged.matches("stderr=why").count(), MAX_STDERR_LINES, "{logged}");
    assert!(logged.contains("stderr_lines_left_out="), "{logged}");
}

#[test]
fn at_the_deadline_the_plugin_is_killed_and_reaped() {
    // The second form has closed its pipes: only its process is left to wait for.
    for script in ["echo $$ > \"$0.pid\"; exec sleep 60", "echo $$ > \"$0.pid\"; exec sleep 60 <&- >&- 2>&-"]
    {
        let bed = Bed::new(script);
        let started = Instant::now();
        let error = bed.run("ADD", b"{}", Duration::from_millis(700)).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(10));
        let pid = std::fs::read_to_string(bed.dir.path().join("p.pid")).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "{script}: left running or as a zombie");
        assert_eq!(code(error), 11);
    }
}

#[test]
fn a_grandchild_that_keeps_the_pipes_is_not_waited_for() {
    let bed = Bed::new("sleep 5 & echo '{}'");
    let started = Instant::now();
    assert_eq!(bed.add().unwrap(), Some(serde_json::json!({})));
    assert!(started.elapsed() < Duration::from_secs(4), "waited for the grandchild");
}

#[test]
fn the_plugin_does_not_inherit_our_files() {
    let bed = Bed::new("ls -l /proc/$$/fd >&2");
    let ours = bed.dir.path().join("ours");
    let _held = std::fs::File::create(&ours).unwrap();
    bed.add().unwrap();
    let seen = bed.logged();
    assert!(seen.contains("pipe:") && !seen.contains(ours.to_str().unwrap()), "{seen}");
}
