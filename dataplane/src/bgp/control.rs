//! The control socket: a line of JSON in, a line of JSON out (`peering::control`). Only root may ask.

use super::engine::Message;
use super::poller::Waker;
use crate::shutdown::Shutdown;
use anyhow::{Context as _, Result};
use peering::control::{MAX_REQUEST, Request, Response};
use rustix::event::{PollFd, PollFlags, poll};
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Sender, sync_channel};
use std::time::Duration;

/// For a client to ask, and for the engine to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Control {
    listener: UnixListener,
    inbox: Sender<Message>,
    waker: Waker,
}

impl Control {
    pub fn bind(path: &Path, inbox: Sender<Message>, waker: Waker) -> Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        // The lock of the host's one daemon says that whoever left it is gone.
        let _ = std::fs::remove_file(path);
        let listener =
            UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Control { listener, inbox, waker })
    }

    /// One question at a time, until the daemon stops.
    pub fn run(&self, stop: &Shutdown) {
        while !stop.is_set() {
            let mut fds = [
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::from_borrowed_fd(stop.fd(), PollFlags::IN),
            ];
            if poll(&mut fds, None).is_err() {
                continue;
            }
            if let Ok((stream, _)) = self.listener.accept()
                && let Err(error) = self.serve(&stream)
            {
                tracing::debug!(%error, "a question about BGP was not answered");
            }
        }
    }

    fn serve(&self, stream: &UnixStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(stream.take(MAX_REQUEST as u64)).read_line(&mut line)?;
        let response = match serde_json::from_str(&line) {
            Ok(request) => self.ask(request),
            Err(error) => Response::Error(format!("not a request: {error}")),
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        (&*stream).write_all(&text)
    }

    pub fn ask(&self, request: Request) -> Response {
        ask(&self.inbox, &self.waker, request)
    }
}

/// Puts a question to the engine.
pub(super) fn ask(inbox: &Sender<Message>, waker: &Waker, request: Request) -> Response {
    let (answer, answered) = sync_channel(1);
    let late = || Response::Error("the speaker is busy; try again".into());
    if inbox.send(Message::Ask(request, answer)).is_err() {
        return late();
    }
    waker.wake();
    answered.recv_timeout(PATIENCE).unwrap_or_else(|_| late())
}
