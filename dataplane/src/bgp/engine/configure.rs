//! From the wish to sessions, sockets, BFD and kernel rules: only what differs is touched.

use super::*;

impl Engine {
    pub(super) fn set_wish(&mut self, wish: Wish) {
        self.configured = unix_now();
        self.note_words(&wish);
        if self.wish.as_ref().is_some_and(|old| old.rib != wish.rib) {
            tracing::info!(
                "the node's AS number, router id or cluster id changed: all BGP sessions start anew"
            );
            self.end_all();
        }
        if self.speaker.is_none() {
            self.start_speaker(&wish);
        }
        self.set_peers(&wish);
        self.wish = Some(wish);
        self.originate();
        self.set_listeners();
        self.set_bfd();
        self.set_kernel();
    }

    /// The level of the log, and what is wrong with resources: each problem is logged once.
    fn note_words(&mut self, wish: &Wish) {
        let old = self.wish.as_ref();
        if old.map(|old| &old.log_level) != Some(&wish.log_level) {
            let level = wish.log_level.as_deref();
            if !crate::log::set_bgp_level(level) {
                tracing::warn!(level, "BGPConfiguration: spec.logSeverityScreen is no level");
            }
        }
        let is_new = |(object, what): &(&String, &String)| {
            old.is_none_or(|old| old.problems.get(*object) != Some(*what))
        };
        for (object, what) in wish.problems.iter().filter(is_new) {
            tracing::warn!(object, "{what}");
        }
    }

    pub(super) fn end_all(&mut self) {
        let ids: Vec<PeerId> = self.peers.ids().collect();
        for id in ids {
            self.remove_peer(id);
        }
        self.obey();
        self.speaker = None;
        self.originated.clear();
    }

    /// After a restart of the daemon, not of the host, the kernel still forwards: sessions say so, and routes are
    /// selected once the peers that were up have told theirs.
    pub(super) fn start_speaker(&mut self, wish: &Wish) {
        let seed = u64::from(std::process::id()) << 32 | u64::from(self.started as u32);
        let mut speaker = Speaker::new(wish.rib, seed);
        let before = if self.wish.is_none() { self.state.read() } else { BTreeSet::new() };
        let configured = wish.peers.keys().filter_map(|key| match key {
            PeerKey::At(addr, _) if before.contains(addr) => Some(self.peers.id_of(*key)),
            PeerKey::At(..) | PeerKey::Range(_) => None,
        });
        let configured: Vec<PeerId> = configured.collect();
        let dynamic = before.iter().filter(|addr| wish.peers.keys().any(|key| is_from(key, **addr)));
        let dynamic: Vec<PeerId> = dynamic.map(|addr| self.peers.id_of(PeerKey::At(*addr, 0))).collect();
        let awaited = [configured, dynamic].concat();
        self.restarting = true;
        tracing::info!(
            peers = awaited.len(),
            routes = self.fib.installed(),
            "BGP begins; peers that were up before"
        );
        speaker.restarted(&awaited, RESTART_WAIT, self.begun.elapsed());
        self.speaker = Some(speaker);
    }

    pub(super) fn set_peers(&mut self, wish: &Wish) {
        let gone: Vec<PeerId> = self.peers.not_in(wish);
        for id in gone {
            self.remove_peer(id);
        }
        for (key, peer) in &wish.peers {
            if let PeerKey::At(addr, port) = *key {
                let id = self.peers.id_of(*key);
                self.set_peer(id, addr, port, None, peer.clone());
            }
        }
        for (id, addr, range) in self.peers.dynamic() {
            if let Some(peer) = wish.peers.get(&PeerKey::Range(range)) {
                self.set_peer(id, addr, 0, Some(range), peer.clone());
            }
        }
    }

    pub(super) fn set_peer(
        &mut self,
        id: PeerId,
        addr: IpAddr,
        port: u16,
        range: Option<Prefix>,
        wish: peering::PeerWish,
    ) {
        let now = self.now();
        let reset = self.peers.set(id, Peer::new(addr, port, range, wish));
        let (Some(speaker), Some(peer)) = (&mut self.speaker, self.peers.get(id)) else { return };
        speaker.set_peer(id, peer.config(), now);
        if reset {
            let communication = String::new();
            speaker.handle(id, Input::Stop(Stop::Cease { code: Cease::ConfigChange, communication }), now);
            speaker.handle(id, Input::Start, now);
        }
    }

    pub(super) fn remove_peer(&mut self, id: PeerId) {
        let now = self.now();
        if let Some(speaker) = &mut self.speaker {
            speaker.remove_peer(id, now);
        }
        self.obey();
        self.peers.remove(id);
    }

    /// Blocks, services, and those routes to pods that no block stands for.
    pub(super) fn originate(&mut self) {
        let (Some(wish), Some(speaker)) = (&self.wish, &mut self.speaker) else { return };
        let hosts = self.topology.pods().filter(|p| wish.host_routes.admits(p)).copied();
        let wanted: BTreeSet<Prefix> = wish.originate.iter().copied().chain(hosts).collect();
        for prefix in self.originated.difference(&wanted) {
            speaker.retract(*prefix);
        }
        for prefix in wanted.difference(&self.originated) {
            speaker.originate(*prefix, Attributes::local(Ipv4Addr::UNSPECIFIED.into()));
        }
        self.originated = wanted;
    }

    /// Without peers nothing listens.
    pub(super) fn set_listeners(&mut self) {
        let Some(wish) = &self.wish else { return };
        let on = match wish.peers.is_empty() {
            true => Vec::new(),
            false => sockets::places(&wish.listen_on, wish.port),
        };
        if self.listeners.iter().map(|l| l.on).ne(on.iter().copied()) {
            self.listeners.clear();
            for place in on {
                match self.listen(place) {
                    Ok(listener) => self.listeners.push(listener),
                    Err(error) => tracing::error!(%place, %error, "cannot listen for BGP"),
                }
            }
        }
        self.set_passwords();
    }

    pub(super) fn listen(&self, on: SocketAddr) -> io::Result<Listener> {
        let socket = sockets::listen(on)?;
        self.poller.add(&socket, LISTENERS + self.listeners.len() as u64, READ)?;
        Ok(Listener { socket, on, passwords: BTreeMap::new() })
    }

    pub fn listening(&self) -> Vec<String> {
        self.listeners.iter().map(|l| l.on.to_string()).collect()
    }

    pub(super) fn set_passwords(&mut self) {
        let Some(wish) = &self.wish else { return };
        let all = wish.peers.iter().filter_map(|(key, peer)| {
            let network = match key {
                PeerKey::At(addr, _) => Prefix::host(*addr),
                PeerKey::Range(range) => *range,
            };
            Some((network, peer.password.as_ref()?.0.clone()))
        });
        let all: BTreeMap<Prefix, String> = all.collect();
        for listener in &mut self.listeners {
            listener.set_passwords(&all);
        }
    }

    pub(super) fn set_bfd(&mut self) {
        let wanted: Wanted = self.peers.iter().filter_map(|(_, peer)| peer.bfd()).collect();
        if wanted != self.bfd_wanted {
            self.bfd_up.retain(|addr| wanted.contains_key(addr));
            self.bfd_wanted = wanted.clone();
            // The thread lives as long as this sender.
            let _ = self.bfd.0.send(wanted);
            self.bfd.1.wake();
        }
    }

    pub fn bfd_state(&self, addr: IpAddr) -> Option<&'static str> {
        use crate::bgp::bfd::state_name;
        let state = if self.bfd_up.contains(&addr) { bgp::bfd::State::Up } else { bgp::bfd::State::Down };
        self.bfd_wanted.get(&addr).map(|_: &BfdPeer| state_name(state))
    }

    pub(super) fn set_kernel(&mut self) {
        let (Some(wish), Some(speaker)) = (&self.wish, &self.speaker) else { return };
        self.fib.set_rules(&wish.kernel, speaker.rib());
        let through = wish.peers.iter().filter_map(|(key, peer)| match (key, peer.reachable_by) {
            (PeerKey::At(addr, _), Some(gateway)) => Some((Prefix::host(*addr), gateway)),
            _ => None,
        });
        self.fib.set_statics(through.collect());
    }
}

pub(super) fn is_from(key: &PeerKey, addr: IpAddr) -> bool {
    match key {
        PeerKey::At(..) => false,
        PeerKey::Range(range) => range.contains(addr),
    }
}

impl Listener {
    fn set_passwords(&mut self, all: &BTreeMap<Prefix, String>) {
        let family = bgp::Family::of(self.on.ip());
        let wanted = || all.iter().filter(|(peers, _)| peers.family() == family);
        let gone = self.passwords.keys().filter(|p| !all.contains_key(p)).map(|p| (*p, None));
        let news = wanted().filter(|(p, key)| self.passwords.get(p) != Some(key));
        let changes: Vec<_> = gone.chain(news.map(|(p, key)| (*p, Some(key.as_str())))).collect();
        for (peers, key) in changes {
            if let Err(error) = sockets::set_md5(&self.socket, &peers, key) {
                tracing::error!(%peers, %error, "a BGP password could not be set");
            }
        }
        self.passwords = wanted().map(|(p, key)| (*p, key.clone())).collect();
    }
}
