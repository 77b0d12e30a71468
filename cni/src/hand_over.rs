//! Requests about a cluster's store are served by a second program, beside this one: the clients of
//! such stores would make every start of the plugin slower (etcd's alone by 3 %).

use cni_protocol::CniError;
use datastore::Deadline;
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The program, in the directory of this one.
const PROGRAM: &str = "percale-cluster";

/// Tells the cluster program that the daemon was asked, and the milliseconds that are left for the call.
const ASKED: &str = "PERCALE_ASKED";

/// The time that is left, in a program that another one handed the call over to.
pub(crate) fn time_left() -> Option<Duration> {
    std::env::var(ASKED).ok()?.parse().ok().map(Duration::from_millis)
}

fn left_ms(deadline: Deadline) -> String {
    deadline.left().as_millis().to_string()
}

/// Becomes the cluster program, with the same environment, name and stdin. It returns only to say
/// why that failed.
pub(crate) fn to_cluster_program(stdin: &[u8], deadline: Deadline) -> CniError {
    let program = match beside() {
        Ok(program) => program,
        Err(e) => {
            return CniError::io("this program's own place cannot be found; is /proc mounted?").caused_by(&e);
        }
    };
    let failed = match again(stdin) {
        Ok(stdin) => {
            let name = std::env::args_os().next().unwrap_or_else(|| "percale".into());
            Command::new(&program).arg0(name).env(ASKED, left_ms(deadline)).stdin(stdin).exec()
        }
        Err(e) => e,
    };
    let msg =
        format!("{}: cannot be run; networks in a cluster's store need it beside percale", program.display());
    CniError::io(msg).caused_by(&failed)
}

fn beside() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(PROGRAM))
}

/// What was read from stdin, to be read once more.
fn again(stdin: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("request", MemfdFlags::CLOEXEC)?);
    file.write_all(stdin)?;
    seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}
