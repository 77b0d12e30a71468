//! A plugin is executed once before it takes its place: the file that a runtime will execute, from
//! the file system it will be executed from.

use crate::error::{FileError, Kind};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

/// Asks the program at `path` for VERSION, under the name that it will have.
///
/// # Errors
/// `NoExec`, `BadPlugin` with what it said.
pub fn version(path: &Path, name: &str) -> Result<(), FileError> {
    let bad = |told: String| FileError::new("run VERSION", path, Kind::BadPlugin).told(told);
    let answer = memfd().map_err(|e| FileError::os("run VERSION", path, e))?;
    let mut child = start(path, name, &answer)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its stdin is none the worse.
        let _ = stdin.write_all(br#"{"cniVersion":"1.0.0","name":"verify","type":"verify"}"#);
    }
    let ended = wait(&mut child).map_err(|e| FileError::os("run VERSION", path, e))?;
    let told = read(answer).map_err(|e| FileError::os("run VERSION", path, e))?;
    match ended {
        None => Err(bad(format!("no answer within {} s", LIMIT.as_secs()))),
        Some(status) if !status.success() => Err(bad(format!("{status} {}", told.trim()))),
        Some(_) => match serde_json::from_str::<Value>(&told) {
            Ok(answer) if answer["supportedVersions"].is_array() => Ok(()),
            _ => Err(bad(format!("its answer was {:?}", told.trim()))),
        },
    }
}

/// A file and no pipe: a child of the plugin that keeps its end open would keep us waiting.
fn memfd() -> std::io::Result<File> {
    let fd = rustix::fs::memfd_create("version", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(File::from(fd))
}

fn read(mut answer: File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    answer.seek(SeekFrom::Start(0))?;
    answer.take(1 << 16).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn start(path: &Path, name: &str, answer: &File) -> Result<Child, FileError> {
    let answer = answer.try_clone().map_err(|e| FileError::os("run VERSION", path, e))?;
    let mut command = Command::new(path);
    command.arg0(name).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("CNI_COMMAND", "VERSION").stdin(Stdio::piped()).stdout(answer).stderr(Stdio::null());
    command.process_group(0);
    let deadline = Instant::now() + LIMIT;
    loop {
        match command.spawn() {
            Ok(child) => return Ok(child),
            // A process that forked while the file was open for writing has not executed yet.
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && is_noexec(path) => {
                return Err(FileError::new("run VERSION", path, Kind::NoExec));
            }
            Err(e) => return Err(FileError::new("run VERSION", path, Kind::BadPlugin).told(e.to_string())),
        }
    }
}

fn is_noexec(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// Waits for the end; `None` when it took too long, and was killed.
fn wait(child: &mut Child) -> std::io::Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + LIMIT;
    let mut pause = Duration::from_micros(200);
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    // With whatever it started.
    rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL)?;
    child.wait()?;
    Ok(None)
}
