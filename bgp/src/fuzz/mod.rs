//! Entry points for fuzzers: any octets in, no panic and no broken promise out. The crate's own tests feed them
//! random octets; `fuzz/` in the tree feeds them cleverer ones.

mod operations;

#[cfg(test)]
mod tests;

use crate::session::{ConnId, Input, Output, Session, SessionConfig, Stop};
use crate::wire::{Cease, DecodeParams, EncodeParams, Framer, HEADER, Message, Update, announce};
use crate::{PerFamily, Prefix, Time, bfd};

pub use operations::rib_operations;

/// Octets read one after the other; zeros when they are used up.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }
}

/// A stream of messages. What an UPDATE says survives being written and read again.
pub fn messages(data: &[u8]) {
    let mut source = Source(data);
    let bits = source.byte();
    let bit = |n: u8| bits >> n & 1 == 1;
    let params = DecodeParams {
        as4: bit(0),
        internal: bit(1),
        families: PerFamily { v4: !bit(2), v6: !bit(3) },
        add_path: PerFamily { v4: bit(4), v6: bit(5) },
        extended_next_hop: bit(6),
    };
    let mut framer = Framer::default();
    framer.push(source.0);
    while let Ok(Some(frame)) = framer.next(bit(7)) {
        if let Ok(Message::Update(update)) = Message::decode(&frame, &params) {
            written_again(&update, &params);
        }
    }
}

/// One UPDATE's body, so that a fuzzer need not find the header.
pub fn update(data: &[u8]) {
    let Some((bits, body)) = data.split_first() else { return };
    let len = HEADER + body.len();
    let Ok(field) = u16::try_from(len) else { return };
    let mut stream = vec![bits | 0x80];
    stream.extend([0xff; 16]);
    stream.extend(field.to_be_bytes());
    stream.push(2);
    stream.extend(body);
    messages(&stream);
}

fn written_again(update: &Update, params: &DecodeParams) {
    let encode = EncodeParams { as4: true, add_path: params.add_path, extended_message: true };
    let params = DecodeParams { as4: true, extended_next_hop: true, ..*params };
    for reach in &update.reach {
        let Ok(messages) = announce(&reach.attributes, reach.nlri[0].prefix.family(), &reach.nlri, &encode)
        else {
            continue;
        };
        let mut framer = Framer::default();
        framer.push(&messages.concat());
        let mut nlri = Vec::new();
        while let Some(frame) = framer.next(true).expect("own messages are framed well") {
            let Ok(Message::Update(again)) = Message::decode(&frame, &params) else {
                panic!("own message refused")
            };
            assert_eq!(again.problems, [], "own message is malformed");
            for r in again.reach {
                assert_eq!(r.attributes, reach.attributes);
                nlri.extend(r.nlri);
            }
        }
        assert_eq!(nlri, reach.nlri);
    }
}

/// A BFD packet: decoded ones are written back octet for octet.
pub fn bfd_packet(data: &[u8]) {
    if let Ok(packet) = bfd::Packet::decode(data) {
        assert_eq!(packet.encode(), data[..bfd::LENGTH]);
    }
}

/// A session that hears anything at any time. Up and Down take turns, and no deadline stays behind.
pub fn session(data: &[u8]) {
    let mut source = Source(data);
    let mut config = SessionConfig::new(65000, [10, 0, 0, 1].into(), 65001);
    config.passive = source.flag();
    config.hold_time = [0, 3, 90, 240][usize::from(source.below(4))];
    let mut s = Session::new(config, source.byte().into());
    let (mut now, mut up) = (Time::ZERO, false);
    while !source.is_empty() {
        now += Time::from_millis(u64::from(source.byte()).pow(2));
        s.handle_timeout(now);
        let input = input(&mut source);
        s.handle(input, now);
        s.handle_timeout(now);
        assert!(s.poll_timeout().is_none_or(|t| t > now), "a deadline is left behind");
        while let Some(output) = s.poll_output() {
            match output {
                Output::Up(_) => assert!(!std::mem::replace(&mut up, true), "up twice"),
                Output::Down(_) => assert!(std::mem::replace(&mut up, false), "down twice"),
                _ => {}
            }
        }
        assert_eq!(up, s.negotiated().is_some());
    }
}

fn input(source: &mut Source<'_>) -> Input {
    let conn = ConnId(source.below(4).into());
    match source.below(12) {
        0 => Input::Start,
        1 => Input::Stop(Stop::Silent),
        2 => Input::Stop(Stop::Cease { code: Cease::Shutdown, communication: "x".into() }),
        3 => Input::Connected(conn),
        4 => Input::ConnectFailed,
        5 => Input::Accepted(conn),
        6 => Input::Closed(conn),
        7 => Input::BfdDown { forwarding_independent: source.flag() },
        8 => Input::Received(conn, good_message(source)),
        _ => {
            let n = usize::from(source.byte()).min(source.0.len());
            let (octets, rest) = source.0.split_at(n);
            source.0 = rest;
            Input::Received(conn, octets.to_vec())
        }
    }
}

/// What a peer would say, so that random input gets past the handshake.
fn good_message(source: &mut Source<'_>) -> Vec<u8> {
    use crate::wire::{Capability, Open, encode_keepalive, encode_open};
    if source.flag() {
        return encode_keepalive();
    }
    let router_id = [10, 0, 0, source.below(3)].into();
    let capabilities =
        vec![Capability::FourOctetAs(65001), Capability::MultiProtocol(crate::Family::Ipv4.into())];
    encode_open(&Open { asn: 65001, hold_time: 90, router_id, capabilities })
}

fn prefix(index: u8) -> Prefix {
    let text = match index % 8 {
        0 => "0.0.0.0/0",
        1 => "10.0.0.0/8",
        2 => "10.0.0.0/9",
        3 => "192.0.2.1/32",
        4 => "::/0",
        5 => "fd00::/8",
        6 => "fd00::1/128",
        _ => "203.0.113.0/24",
    };
    text.parse().expect("a literal prefix")
}
