//! Recordings of real speakers (`testdata/bgp`), cut in pieces anywhere, come to what is written beside them.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use bgp::rib::{NeighborOptions, PeerId, RibOptions};
use bgp::session::{AddPath, ConnId, Input, RestartConfig, SessionConfig};
use bgp::speaker::{Output, PeerConfig, Speaker};
use bgp::wire::Attributes;
use bgp::{PerFamily, Time};

const PEER: PeerId = PeerId(1);
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const CONN: ConnId = ConnId(1);

fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/bgp");
    let files =
        std::fs::read_dir(folder).expect("the recordings are there").map(|e| e.expect("readable").path());
    let mut hex: Vec<PathBuf> = files.filter(|p| p.extension().is_some_and(|e| e == "hex")).collect();
    hex.sort();
    hex
}

fn octets(file: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(file).expect("a recording is text");
    let digits: Vec<u8> = text.trim().bytes().collect();
    let digit = |d: u8| char::from(d).to_digit(16).expect("a recording is hexadecimal") as u8;
    let pair = |d: &[u8; 2]| digit(d[0]) << 4 | digit(d[1]);
    digits.as_chunks().0.iter().map(pair).collect()
}

/// The speaker that the recordings were made with.
fn speaker() -> Speaker {
    let options = RibOptions { local_as: 65002, router_id: LOCAL, cluster_id: None, max_paths: 4 };
    let mut session = SessionConfig::new(65002, LOCAL, 0);
    session.peer_as = None;
    session.passive = true;
    session.add_path = PerFamily::from_fn(|_| AddPath { send: true, receive: true });
    session.extended_next_hop = true;
    session.restart = Some(RestartConfig {
        time: 120,
        forwarding: PerFamily::BOTH,
        long_lived: PerFamily { v4: 3600, v6: 3600 },
    });
    let own = PerFamily { v4: Some(IpAddr::V4(LOCAL).into()), v6: None };
    let addr = IpAddr::from([10, 99, 0, 1]);
    let mut speaker = Speaker::new(options, 1);
    speaker.set_peer(PEER, PeerConfig { addr, session, options: NeighborOptions::new(own) }, Time::ZERO);
    speaker.handle(PEER, Input::Accepted(CONN), Time::ZERO);
    speaker
}

/// Everything that the stream came to, as text; `piece` octets at a time.
fn outcome(stream: &[u8], piece: usize) -> String {
    let mut speaker = speaker();
    let mut text = String::new();
    for octets in stream.chunks(piece) {
        speaker.handle(PEER, Input::Received(CONN, octets.to_vec()), Time::ZERO);
        while let Some(output) = speaker.poll_output() {
            match output {
                Output::Up(_, n) => push(&mut text, format_args!("up: {n:#?}")),
                Output::Send(..) => {}
                other => push(&mut text, format_args!("{other:?}")),
            }
        }
    }
    for (prefix, path_id, a) in speaker.rib().received_from(PEER) {
        let hops = speaker.rib().next_hops(prefix).len();
        push(&mut text, format_args!("{prefix} id {path_id} next hops in use {hops}: {}", route(&a)));
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes everything");
}

fn route(a: &Attributes) -> String {
    let Attributes { origin, as_path, next_hop, med, communities, extended, large, .. } = a;
    format!(
        "{origin:?} path {as_path} via {} med {med:?} communities {communities:x?} {extended:x?} {large:?}",
        next_hop.addr
    )
}

#[test]
fn recordings_of_real_speakers_come_to_what_is_written_beside_them() {
    let all = recordings();
    assert!(all.len() >= 3, "{all:?}");
    for file in all {
        let stream = octets(&file);
        let got = outcome(&stream, stream.len());
        let expected = file.with_extension("expected");
        if std::env::var_os("PERCALE_BLESS").is_some() {
            std::fs::write(&expected, &got).unwrap();
        }
        assert_eq!(got, std::fs::read_to_string(&expected).unwrap(), "{}", file.display());
        for piece in [1, 2, 19, 100] {
            assert_eq!(outcome(&stream, piece), got, "{} in pieces of {piece}", file.display());
        }
    }
}

/// Any single octet of a recording changed: an error that ends the session, or a route less, never a panic.
#[test]
fn garbled_recordings_are_survived() {
    for file in recordings() {
        let stream = octets(&file);
        for at in 0..stream.len() {
            for value in [0, 0xff, stream[at] ^ 1] {
                let mut garbled = stream.clone();
                garbled[at] = value;
                outcome(&garbled, garbled.len());
            }
        }
    }
}
