//! Talks to a real speaker over TCP and prints what comes of it: for trying the crate, and for recording what others
//! send (`testdata/bgp/*.hex`). A toy driver: one peer, one thread, it looks around every few milliseconds.
//!
//! `cargo run -p bgp --example talk PEER:PORT LOCAL_ADDRESS LOCAL_AS PEER_AS SECONDS [RECORD_FILE]`

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bgp::rib::{NeighborOptions, PeerId, RibOptions};
use bgp::session::{AddPath, ConnId, Input, RestartConfig, SessionConfig, Stop};
use bgp::speaker::{Output, PeerConfig, Speaker};
use bgp::wire::{Attributes, Cease};
use bgp::{PerFamily, Time};

const PEER: PeerId = PeerId(1);

struct Driver {
    speaker: Speaker,
    to: SocketAddr,
    connection: Option<(ConnId, TcpStream)>,
    connections: u32,
    received: Vec<u8>,
    begun: Instant,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [to, local, local_as, peer_as, seconds, record @ ..] = &args[..] else {
        eprintln!("talk PEER:PORT LOCAL_ADDRESS LOCAL_AS PEER_AS SECONDS [RECORD_FILE]");
        std::process::exit(64);
    };
    let number = |text: &String| text.parse::<u32>().expect("a number");
    let (to, local) = (to.parse().expect("ADDRESS:PORT"), local.parse().expect("an IPv4 address"));
    let mut driver = Driver::new(to, local, number(local_as), number(peer_as));
    driver.run(Duration::from_secs(number(seconds).into()));
    driver.report();
    if let [file, ..] = record {
        let hex: String = driver.received.iter().map(|b| format!("{b:02x}")).collect();
        std::fs::write(file, hex + "\n").expect("the record can be written");
    }
}

impl Driver {
    fn new(to: SocketAddr, local: Ipv4Addr, local_as: u32, peer_as: u32) -> Driver {
        let options = RibOptions { local_as, router_id: local, cluster_id: None, max_paths: 4 };
        let mut speaker = Speaker::new(options, u64::from(std::process::id()));
        let mut session = SessionConfig::new(local_as, local, peer_as);
        session.connect_delay = Duration::from_millis(100);
        session.add_path = PerFamily::from_fn(|_| AddPath { send: true, receive: true });
        session.extended_next_hop = true;
        session.restart = Some(RestartConfig {
            time: 120,
            forwarding: PerFamily::BOTH,
            long_lived: PerFamily { v4: 3600, v6: 3600 },
        });
        let v6: IpAddr = "2001:db8::99".parse().expect("a literal");
        let own = PerFamily { v4: Some(IpAddr::V4(local).into()), v6: Some(v6.into()) };
        let config = PeerConfig { addr: to.ip(), session, options: NeighborOptions::new(own) };
        speaker.set_peer(PEER, config, Time::ZERO);
        for prefix in ["198.51.100.0/24", "2001:db8:99::/48"] {
            let mut attributes = Attributes::local(IpAddr::V4(local));
            attributes.add_community(65000 << 16 | 7);
            attributes.add_large([65000, 7, 8]);
            speaker.originate(prefix.parse().expect("a literal"), attributes);
        }
        Driver { speaker, to, connection: None, connections: 0, received: Vec::new(), begun: Instant::now() }
    }

    fn run(&mut self, time: Duration) {
        while self.begun.elapsed() < time {
            self.read();
            let now = self.begun.elapsed();
            self.speaker.handle_timeout(now);
            while self.speaker.pump(PEER, now) {}
            self.obey();
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("state after {time:?}: {:?}", self.speaker.state(PEER));
    }

    fn read(&mut self) {
        let Some((id, stream)) = &mut self.connection else { return };
        let (id, mut buffer) = (*id, [0; 65536]);
        let input = match stream.read(&mut buffer) {
            Ok(0) => Input::Closed(id),
            Ok(n) => {
                self.received.extend_from_slice(&buffer[..n]);
                Input::Received(id, buffer[..n].to_vec())
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Err(_) => Input::Closed(id),
        };
        self.speaker.handle(PEER, input, self.begun.elapsed());
    }

    fn obey(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            match output {
                Output::Connect(_) => self.connect(),
                Output::Send(_, id, octets) => self.send(id, &octets),
                Output::Close(..) => self.connection = None,
                Output::CancelConnect(_) | Output::Converged => {}
                event => println!("{event:?}"),
            }
        }
        while let Some(change) = self.speaker.poll_fib() {
            println!("route {} via {:?}", change.prefix, change.next_hops);
        }
    }

    fn connect(&mut self) {
        self.connections += 1;
        let id = ConnId(self.connections);
        let input = match TcpStream::connect_timeout(&self.to, Duration::from_secs(1)) {
            Ok(stream) => {
                stream.set_nonblocking(true).expect("a new socket can be set so");
                self.connection = Some((id, stream));
                Input::Connected(id)
            }
            Err(_) => Input::ConnectFailed,
        };
        self.speaker.handle(PEER, input, self.begun.elapsed());
    }

    fn send(&mut self, id: ConnId, octets: &[u8]) {
        if let Some((have, stream)) = &mut self.connection
            && *have == id
        {
            // A few messages fit any socket buffer.
            stream.write_all(octets).expect("room in the socket");
        }
    }

    fn report(&mut self) {
        for (prefix, id, a) in self.speaker.rib().received_from(PEER) {
            println!("received {prefix} id {id}: {a:?}");
        }
        let stop = Stop::Cease { code: Cease::Shutdown, communication: "that is all".into() };
        self.speaker.handle(PEER, Input::Stop(stop), self.begun.elapsed());
        self.obey();
    }
}
