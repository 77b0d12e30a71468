//! What goes into a session and what comes out.

use std::sync::Arc;

use crate::wire::{Cease, Notification, Refresh, Update};

use super::negotiate::Negotiated;

/// A TCP connection, named by whoever owns the sockets. A number that is used again stands for the new
/// connection; the old one is taken for closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u32);

/// How an operator's stop is told to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Say nothing: the daemon restarts and the peer shall keep our routes (RFC 4724 section 4).
    Silent,
    /// A NOTIFICATION after which nothing is kept, with words for the other operator (RFC 9003).
    Cease { code: Cease, communication: String },
}

/// What happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The session is wanted.
    Start,
    Stop(Stop),
    /// The connection that [`Output::Connect`] asked for is there.
    Connected(ConnId),
    /// It could not be made.
    ConnectFailed,
    /// The peer connected to us.
    Accepted(ConnId),
    Received(ConnId, Vec<u8>),
    /// The connection ended, without or after an error of TCP.
    Closed(ConnId),
    /// BFD lost the peer. `forwarding_independent` is the peer's bit C (RFC 5882 section 4.3): if it is set, its
    /// forwarding is gone, and nothing is kept; else it may only be restarting.
    BfdDown {
        forwarding_independent: bool,
    },
}

/// Why a session went down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// We ended it, with this message.
    Sent(Notification),
    /// The peer ended it.
    Received(Notification),
    ConnectionLost,
    /// We stopped it without a word.
    StoppedSilently,
    /// The peer opened a new connection: it restarted before we noticed.
    PeerReconnected,
    BfdDown,
}

/// The end of an established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    pub reason: Reason,
    /// Graceful restart applies: the peer's routes may be kept for its restart time.
    pub retain: bool,
}

/// What the owner of the session has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Open a connection to the peer; answer with `Connected` or `ConnectFailed`.
    Connect,
    /// The attempt is not wanted any more; no answer is awaited.
    CancelConnect,
    Send(ConnId, Vec<u8>),
    /// After sending what was handed out for it, close it; no `Closed` is awaited.
    Close(ConnId),
    /// A connection that never was established ended for this reason.
    Failed(Reason),
    Up(Arc<Negotiated>),
    Down(Down),
    Update(Update),
    Refresh(Refresh),
}
