//! How a message travels: a stream socket, four bytes of length (big endian), then the bytes. The
//! first byte of a request may bring one descriptor along.

use cni_protocol::daemon::MAX_MESSAGE;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Bytes of the length.
const HEAD: usize = 4;
/// Room that most messages fit into, so that one call reads them.
const USUAL: usize = 16 * 1024;

/// Connects to the daemon's socket.
///
/// # Errors
/// The kernel's; `NotFound` and `ConnectionRefused` where nobody listens.
pub fn connect(path: &Path, limit: Duration) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // A full backlog blocks; so does a reader that does not read.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit.max(Duration::from_millis(1))))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Sends one message, with a descriptor if one is given.
///
/// # Errors
/// The kernel's; what was sent before it may have arrived.
pub fn send(socket: impl AsFd, message: &[u8], passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let length = u32::try_from(message.len()).ok().filter(|_| message.len() <= MAX_MESSAGE);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    let head = length.to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = passed.into_iter().collect();
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let parts = [IoSlice::new(&head), IoSlice::new(message)];
    let mut sent = rustix::net::sendmsg(&socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    while sent < HEAD + message.len() {
        let rest = match sent.checked_sub(HEAD) {
            Some(done) => message.get(done..).unwrap_or_default(),
            None => head.get(sent..).unwrap_or_default(),
        };
        sent += rustix::net::send(&socket, rest, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives one message and the descriptor that came with it.
///
/// # Errors
/// `TimedOut` when it was not there in `limit`, `UnexpectedEof` when the other side ended before,
/// `InvalidData` for a length above [`MAX_MESSAGE`].
pub fn receive(socket: impl AsFd, limit: Duration) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let end = std::time::Instant::now() + limit;
    let mut bytes = vec![0; USUAL];
    let (mut filled, mut passed) = (0, None);
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(left))?;
        let room = bytes.get_mut(filled..).unwrap_or_default();
        match some(&socket, room, &mut passed) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e.into()),
        }
        let Some(whole) = whole(bytes.get(..filled).unwrap_or_default())? else { continue };
        if filled >= whole {
            bytes.truncate(whole);
            bytes.drain(..HEAD);
            return Ok((bytes, passed));
        }
        bytes.resize(whole, 0);
    }
}

/// Length of the whole message, head included, once the head is there.
fn whole(received: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = received.first_chunk::<HEAD>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    match length <= MAX_MESSAGE {
        true => Ok(Some(HEAD + length)),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long")),
    }
}

/// What there is now; the first descriptor that comes along is kept, others are closed.
fn some(
    socket: &impl AsFd,
    room: &mut [u8],
    passed: &mut Option<OwnedFd>,
) -> Result<usize, rustix::io::Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(room)], &mut ancillary, flags)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            for fd in fds {
                passed.get_or_insert(fd);
            }
        }
    }
    Ok(got.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_message_arrives_whole_with_its_descriptor() {
        for size in [0, 1, USUAL, 3 * USUAL, 1 << 20] {
            let (one, two) = UnixStream::pair().unwrap();
            let message = vec![7u8; size];
            let sender = std::thread::spawn({
                let message = message.clone();
                move || {
                    let file = std::fs::File::open("/dev/null").unwrap();
                    send(&one, &message, Some(file.as_fd())).unwrap();
                    one
                }
            });
            let (got, fd) = receive(&two, SOON).unwrap();
            assert!(got == message && fd.is_some());
            sender.join().unwrap();
        }
    }

    #[test]
    fn what_is_too_long_too_late_or_cut_off_is_an_error() {
        let (mut one, two) = UnixStream::pair().unwrap();
        one.write_all(&[0xff; 5]).unwrap();
        assert_eq!(receive(&two, SOON).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (mut one, two) = UnixStream::pair().unwrap();
        one.write_all(&[0, 0, 0, 9, 1]).unwrap();
        let late = receive(&two, Duration::from_millis(20)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let (mut one, two) = UnixStream::pair().unwrap();
        one.write_all(&[0, 0, 0, 9, 1]).unwrap();
        drop(one);
        assert_eq!(receive(&two, SOON).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(send(&two, &vec![0; MAX_MESSAGE + 1], None).is_err());
    }
}
