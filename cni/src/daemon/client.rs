//! The plugin's side (decision 10): ask; ask again when the daemon ended meanwhile; and know when
//! nobody can have begun the request, so that the plugin may serve it itself.

use super::channel;
use cni_protocol::CniError;
use cni_protocol::daemon::{Ask, LogPart, Malformed, OLDEST, Reply, VERSION};
use datastore::Deadline;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

/// Pauses between two tries to reach a daemon that ended: it may be starting again.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What came of asking.
#[derive(Debug)]
pub enum Outcome {
    Served {
        outcome: Result<Option<String>, CniError>,
        log: LogPart,
    },
    /// Nobody began it: nobody listens, or who does refuses, and says why.
    NotServed {
        why: Option<String>,
    },
    /// It may have been begun, and no answer came until the deadline.
    Lost {
        why: String,
    },
}

/// Why one try brought no reply.
enum Failure {
    /// Nothing was sent.
    Unsent(io::Error),
    /// It may have arrived.
    Sent(io::Error),
    Malformed(Malformed),
}

/// Asks the daemon at `socket` until `deadline`.
pub fn ask(socket: &Path, ask: &Ask, netns: Option<BorrowedFd<'_>>, deadline: Deadline) -> Outcome {
    let (mut version, mut may_have_begun) = (VERSION, false);
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match once(socket, ask, version, netns, deadline) {
            Ok(Reply::Served { outcome, log }) => return Outcome::Served { outcome, log },
            Ok(Reply::Refused { speaks, .. })
                if version > OLDEST && speaks.contains(&OLDEST) && !speaks.contains(&version) =>
            {
                version = OLDEST;
                continue;
            }
            // One daemon per host: who refuses now knows of no other that works on it.
            Ok(Reply::Refused { why, .. }) => {
                return Outcome::NotServed { why: Some(format!("percaled refused: {why}")) };
            }
            Err(Failure::Unsent(e)) if !may_have_begun => return Outcome::NotServed { why: unusual(&e) },
            Err(Failure::Unsent(e)) => e.to_string(),
            Err(Failure::Sent(e)) => {
                may_have_begun = true;
                e.to_string()
            }
            Err(Failure::Malformed(e)) if may_have_begun => e.to_string(),
            Err(Failure::Malformed(e)) => return Outcome::Lost { why: e.to_string() },
        };
        let left = deadline.left();
        if left <= pause {
            return Outcome::Lost { why };
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// That there is no daemon is nothing to write home about.
fn unusual(error: &io::Error) -> Option<String> {
    let absent = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
    (!absent).then(|| format!("percaled cannot be reached: {error}"))
}

fn once(
    socket: &Path,
    ask: &Ask,
    version: u32,
    netns: Option<BorrowedFd<'_>>,
    deadline: Deadline,
) -> Result<Reply, Failure> {
    let ask = Ask { left: deadline.left(), ..ask.clone() };
    let message = ask.encode(version).map_err(|e| Failure::Unsent(io::Error::other(e)))?;
    let socket = channel::connect(socket, deadline.left()).map_err(Failure::Unsent)?;
    channel::send(&socket, &message, netns).map_err(Failure::Sent)?;
    let (reply, _) = channel::receive(&socket, deadline.left()).map_err(Failure::Sent)?;
    Reply::decode(&reply).map_err(Failure::Malformed)
}
