//! Runs another program for its output, bounded in time and size.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(10);
/// A host with tens of thousands of services has a ruleset of this order, in bytes.
const MAX_OUTPUT: u64 = 256 << 20;

/// Places beside PATH where administration tools are.
const SBIN: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Where a program is, in PATH or the usual places.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SBIN.map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|file| is_executable(file))
}

pub fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The program's stdout, or in one line why there is none.
pub fn output(program: &Path, args: &[&str]) -> Result<String, String> {
    let name = program.display();
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{name}: {e}"))?;
    let Some(mut stdout) = child.stdout.take() else { return Err(format!("{name}: no output")) };
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.by_ref().take(MAX_OUTPUT).read_to_string(&mut text);
        // Nobody waits any more after the deadline.
        let _ = sender.send(read.map(|_| text));
    });
    let answer = receiver.recv_timeout(WAIT);
    if answer.is_err() {
        // It may have ended in this moment.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
    match answer {
        Ok(Ok(text)) if status.success() => Ok(text),
        Ok(Ok(_)) => Err(format!("{name}: {status}")),
        Ok(Err(e)) => Err(format!("{name}: {e}")),
        Err(_) => Err(format!("{name}: no answer within {} s", WAIT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_or_the_reason_for_none() {
        let sh = find("sh").unwrap();
        assert_eq!(output(&sh, &["-c", "echo a"]), Ok("a\n".to_owned()));
        assert!(output(&sh, &["-c", "exit 3"]).unwrap_err().contains('3'));
        assert!(output(Path::new("/no/such"), &[]).is_err());
        assert!(find("no-such-program-here").is_none());
    }
}
