//! Between sessions and connections.

use super::configure::is_from;
use super::*;

impl Engine {
    pub(super) fn obey(&mut self) {
        while let Some(output) = self.speaker.as_mut().and_then(Speaker::poll_output) {
            match output {
                Output::Connect(id) => self.connect(id),
                Output::CancelConnect(id) => self.cancel_connect(id),
                Output::Send(_, conn, octets) => self.send(conn, octets),
                Output::Close(_, conn) => self.close(conn),
                Output::Failed(id, reason) => self.peers.failed(id, &reason),
                Output::Up(id, negotiated) => {
                    self.sessions_changed = true;
                    self.peers.up(id, &negotiated);
                }
                Output::Down(id, down) => {
                    self.sessions_changed = true;
                    self.peers.down(id, &down);
                }
                Output::Malformed(id, problem) => self.peers.malformed(id, &problem),
                Output::Converged => self.converged(),
            }
        }
    }

    pub(super) fn converged(&mut self) {
        (self.restarting, self.sessions_changed) = (false, true);
        let Some(speaker) = &self.speaker else { return };
        tracing::info!(routes = speaker.rib().len(), "BGP has what its peers told; stale routes go");
        self.fib.converged(speaker.rib());
    }

    pub(super) fn connect(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(id) else { return };
        let dial = Dial {
            to: SocketAddr::new(peer.addr, peer.port),
            source: peer.wish.source,
            password: peer.wish.password.as_ref().map(|secret| secret.0.as_str()),
            ttl_security: peer.wish.ttl_security,
        };
        match sockets::connect(&dial) {
            Ok(stream) => drop(self.add(Conn::connecting(id, stream))),
            Err(error) => {
                self.peers.not_connected(id, &error);
                self.tell(id, Input::ConnectFailed);
            }
        }
    }

    pub(super) fn add(&mut self, conn: Conn) -> Option<ConnId> {
        let id = ConnId(self.next_conn);
        self.next_conn = self.next_conn.wrapping_add(1);
        let wanted = Ready { read: conn.phase == Phase::Open, write: conn.wants_write };
        match self.poller.add(&conn.stream, CONNECTIONS + u64::from(id.0), wanted) {
            Ok(()) => {
                self.conns.insert(id, conn);
                Some(id)
            }
            Err(error) => {
                tracing::error!(%error, "cannot wait for a BGP connection");
                self.tell(conn.peer, Input::ConnectFailed);
                None
            }
        }
    }

    pub(super) fn cancel_connect(&mut self, peer: PeerId) {
        self.conns.retain(|_, c| c.peer != peer || c.phase != Phase::Connecting);
    }

    pub(super) fn accept(&mut self, listener: usize) {
        let Some(found) = self.listeners.get(listener).map(|l| l.socket.accept()) else { return };
        let Ok((stream, from)) = found else { return };
        let Some(id) = self.peer_for(from.ip()) else {
            tracing::debug!(%from, "a BGP connection from no peer");
            return;
        };
        let Some(peer) = self.peers.get(id) else { return };
        let made = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| sockets::require_ttl_of_accepted(&stream, from.ip(), peer.wish.ttl_security));
        if let Err(error) = made {
            return tracing::warn!(%from, %error, "a BGP connection was not taken");
        }
        self.learn_local_address(id, &stream);
        if let Some(conn) = self.add(Conn::open(id, stream)) {
            self.tell(id, Input::Accepted(conn));
        }
    }

    /// A configured peer, or one that a range lets in.
    pub(super) fn peer_for(&mut self, from: IpAddr) -> Option<PeerId> {
        if let Some(id) = self.peers.at(from).first() {
            return Some(*id);
        }
        let wish = self.wish.as_ref()?;
        let (key, peer) = wish.peers.iter().find(|(key, _)| is_from(key, from))?;
        let (PeerKey::Range(range), peer) = (*key, peer.clone()) else { return None };
        if !self.peers.has_room() {
            tracing::warn!(%from, "too many BGP peers from ranges");
            return None;
        }
        let id = self.peers.id_of(PeerKey::At(from, 0));
        self.set_peer(id, from, 0, Some(range), peer);
        Some(id)
    }

    /// Without a configured source the address of the connection is the next hop that the peer is told.
    pub(super) fn learn_local_address(&mut self, id: PeerId, stream: &std::net::TcpStream) {
        let Ok(local) = stream.local_addr() else { return };
        let now = self.now();
        let (Some(peer), Some(speaker)) = (self.peers.get_mut(id), &mut self.speaker) else { return };
        if peer.set_local(local.ip()) {
            speaker.set_peer(id, peer.config(), now);
        }
    }

    pub(super) fn writable(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.phase != Phase::Connecting {
            return self.flush(id);
        }
        let peer = conn.peer;
        match conn.connected() {
            Ok(()) => {
                if let Ok(stream) = conn.stream.try_clone() {
                    self.learn_local_address(peer, &stream);
                }
                self.tell(peer, Input::Connected(id));
                self.watch(id);
            }
            Err(error) => {
                self.conns.remove(&id);
                self.peers.not_connected(peer, &error);
                self.tell(peer, Input::ConnectFailed);
            }
        }
    }

    pub(super) fn readable(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.phase == Phase::Connecting {
            return;
        }
        let (peer, closing) = (conn.peer, conn.phase == Phase::Closing);
        match conn.read(&mut self.buffer) {
            Got::Data(octets) if !closing => self.tell(peer, Input::Received(id, octets)),
            Got::Data(_) | Got::Nothing => {}
            Got::End => self.broken(id),
        }
        self.obey();
    }

    pub(super) fn broken(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else { return };
        if conn.phase == Phase::Open {
            self.tell(conn.peer, Input::Closed(id));
        }
    }

    pub(super) fn send(&mut self, id: ConnId, octets: Vec<u8>) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.push(octets);
            // What is little goes out together at the end of the round.
            if conn.queued > ROOM {
                self.flush(id);
            }
        }
    }

    pub(super) fn close(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.close();
            self.flush(id);
        }
    }

    pub(super) fn flush(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id).filter(|c| c.phase != Phase::Connecting) else { return };
        if !conn.flush() {
            self.broken(id);
        } else if conn.has_waiting() != conn.wants_write {
            self.watch(id);
        }
    }

    /// Tells the poller what a connection waits for now.
    pub(super) fn watch(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let write = conn.phase == Phase::Connecting || conn.has_waiting();
        let wanted = Ready { read: conn.phase != Phase::Connecting, write };
        conn.wants_write = write;
        if let Err(error) = self.poller.change(&conn.stream, CONNECTIONS + u64::from(id.0), wanted) {
            tracing::error!(%error, "cannot wait for a BGP connection");
        }
    }

    pub(super) fn close_overdue(&mut self) {
        let now = Instant::now();
        let late = |c: &Conn| c.deadline.is_some_and(|at| at <= now);
        let ids: Vec<ConnId> = self.conns.iter().filter(|(_, c)| late(c)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(conn) = self.conns.remove(&id) else { continue };
            if conn.phase == Phase::Connecting {
                self.peers.not_connected(conn.peer, &io::ErrorKind::TimedOut.into());
                self.tell(conn.peer, Input::ConnectFailed);
            }
        }
    }

    /// Makes messages for peers whose connections have room, and sends what waits.
    pub(super) fn pump(&mut self) {
        let mut more = false;
        let open = self.conns.iter().filter(|(_, c)| c.phase == Phase::Open);
        let open: Vec<(ConnId, PeerId)> = open.map(|(conn, c)| (*conn, c.peer)).collect();
        for (conn, peer) in open {
            more |= self.peers.is_established(peer) && self.pump_one(peer, conn);
        }
        let ready = |c: &Conn| c.has_waiting() && !c.wants_write && c.phase != Phase::Connecting;
        let waiting: Vec<ConnId> = self.conns.iter().filter(|(_, c)| ready(c)).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|id| self.flush(id));
        self.busy = more;
    }

    /// True if there is more for a connection that has room.
    pub(super) fn pump_one(&mut self, id: PeerId, conn: ConnId) -> bool {
        for _ in 0..ROUNDS {
            let now = self.now();
            let Some(speaker) = &mut self.speaker else { return false };
            let has_room = self.conns.get(&conn).is_some_and(|c| c.queued < ROOM);
            if !has_room || !speaker.pump(id, now) {
                return false;
            }
            self.obey();
        }
        true
    }

    /// For the next daemon: whom it has to wait for.
    pub(super) fn note_expected(&mut self) {
        // Before the first wish the file still says what the daemon before knew.
        let Some(speaker) = self.speaker.as_ref().filter(|_| !self.restarting) else { return };
        if std::mem::take(&mut self.sessions_changed) {
            let address = |id: PeerId| self.peers.get(id).map(|peer| peer.addr);
            self.state.write(speaker.expected().filter_map(address).collect());
        }
    }
}
