//! BFD control packets: RFC 5880 section 4.1. No authentication, no echo.
//!
//! ```text
//!  |Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//!  |                       My Discriminator                       |
//!  |                      Your Discriminator                      |
//!  |                    Desired Min TX Interval                   |
//!  |                   Required Min RX Interval                   |
//!  |                 Required Min Echo RX Interval                |
//! ```

/// Octets of a packet without authentication.
pub const LENGTH: usize = 24;

/// RFC 5880 section 6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    AdminDown,
    Down,
    Init,
    Up,
}

impl State {
    pub(crate) const ALL: [State; 4] = [State::AdminDown, State::Down, State::Init, State::Up];
}

/// Why the sender last left Up; RFC 5880 section 4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Diagnostic {
    None,
    DetectionTimeExpired,
    NeighborSignaledDown,
    PathDown,
    AdminDown,
    /// Others exist and change nothing here.
    Other(u8),
}

impl Diagnostic {
    fn to_wire(self) -> u8 {
        match self {
            Diagnostic::None => 0,
            Diagnostic::DetectionTimeExpired => 1,
            Diagnostic::NeighborSignaledDown => 3,
            Diagnostic::PathDown => 5,
            Diagnostic::AdminDown => 7,
            Diagnostic::Other(v) => v & 0x1f,
        }
    }

    fn from_wire(value: u8) -> Self {
        match value {
            0 => Diagnostic::None,
            1 => Diagnostic::DetectionTimeExpired,
            3 => Diagnostic::NeighborSignaledDown,
            5 => Diagnostic::PathDown,
            7 => Diagnostic::AdminDown,
            other => Diagnostic::Other(other),
        }
    }
}

/// A control packet. Intervals are microseconds, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub diagnostic: Diagnostic,
    pub state: State,
    pub poll: bool,
    pub final_: bool,
    /// Bit C: forwarding does not share the fate of the sender's control plane.
    pub control_plane_independent: bool,
    pub demand: bool,
    pub detect_mult: u8,
    pub my_discriminator: u32,
    /// 0 if the sender does not know it yet.
    pub your_discriminator: u32,
    pub desired_min_tx: u32,
    pub required_min_rx: u32,
    pub required_min_echo_rx: u32,
}

/// Why a packet must be discarded (RFC 5880 section 6.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("bfd: shorter than 24 octets, or than its length says")]
    Short,
    #[error("bfd: version {0}, not 1")]
    Version(u8),
    #[error("bfd: length {0}, not 24")]
    Length(u8),
    #[error("bfd: authenticated, which was not agreed on")]
    Authenticated,
    #[error("bfd: detect multiplier 0")]
    DetectMult,
    #[error("bfd: multipoint bit set")]
    Multipoint,
    #[error("bfd: sender's discriminator 0")]
    MyDiscriminator,
    #[error("bfd: no discriminator of ours in a state that needs one")]
    YourDiscriminator,
}

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const INDEPENDENT: u8 = 0x08;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

impl Packet {
    /// Decodes and checks a UDP payload.
    pub fn decode(payload: &[u8]) -> Result<Packet, PacketError> {
        let (head, _) = payload.split_first_chunk::<LENGTH>().ok_or(PacketError::Short)?;
        let [vers_diag, flags, detect_mult, length, ..] = *head;
        check_head(vers_diag >> 5, flags, detect_mult, length, payload.len())?;
        let word = |i: usize| u32::from_be_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let packet = Packet {
            diagnostic: Diagnostic::from_wire(vers_diag & 0x1f),
            state: State::ALL[usize::from(flags >> 6)],
            poll: flags & POLL != 0,
            final_: flags & FINAL != 0,
            control_plane_independent: flags & INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            detect_mult,
            my_discriminator: word(4),
            your_discriminator: word(8),
            desired_min_tx: word(12),
            required_min_rx: word(16),
            required_min_echo_rx: word(20),
        };
        packet.check_discriminators().map(|()| packet)
    }

    fn check_discriminators(&self) -> Result<(), PacketError> {
        if self.my_discriminator == 0 {
            return Err(PacketError::MyDiscriminator);
        }
        let early = matches!(self.state, State::Down | State::AdminDown);
        if self.your_discriminator == 0 && !early { Err(PacketError::YourDiscriminator) } else { Ok(()) }
    }

    /// The UDP payload.
    pub fn encode(&self) -> [u8; LENGTH] {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = (self.state as u8) << 6
            | bit(self.poll, POLL)
            | bit(self.final_, FINAL)
            | bit(self.control_plane_independent, INDEPENDENT)
            | bit(self.demand, DEMAND);
        let mut out = [0; LENGTH];
        out[..4].copy_from_slice(&[
            1 << 5 | self.diagnostic.to_wire(),
            flags,
            self.detect_mult,
            LENGTH as u8,
        ]);
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ];
        for (to, word) in out[4..].as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = word.to_be_bytes();
        }
        out
    }
}

/// The order is that of RFC 5880 section 6.8.6.
fn check_head(version: u8, flags: u8, detect_mult: u8, length: u8, have: usize) -> Result<(), PacketError> {
    if version != 1 {
        return Err(PacketError::Version(version));
    }
    if usize::from(length) > have {
        return Err(PacketError::Short);
    }
    if flags & AUTHENTICATED != 0 {
        return Err(PacketError::Authenticated);
    }
    if usize::from(length) != LENGTH {
        return Err(PacketError::Length(length));
    }
    if detect_mult == 0 {
        return Err(PacketError::DetectMult);
    }
    if flags & MULTIPOINT != 0 { Err(PacketError::Multipoint) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Packet = Packet {
        diagnostic: Diagnostic::NeighborSignaledDown,
        state: State::Init,
        poll: true,
        final_: false,
        control_plane_independent: true,
        demand: false,
        detect_mult: 3,
        my_discriminator: 0x0102_0304,
        your_discriminator: 0x0506_0708,
        desired_min_tx: 50_000,
        required_min_rx: 60_000,
        required_min_echo_rx: 0,
    };

    #[test]
    fn the_layout_of_the_rfc() {
        let octets = PACKET.encode();
        assert_eq!(octets[..12], [0x23, 0xa8, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(octets[12..], [0, 0, 0xc3, 0x50, 0, 0, 0xea, 0x60, 0, 0, 0, 0]);
        assert_eq!(Packet::decode(&octets), Ok(PACKET));
    }

    #[test]
    fn each_check_of_the_rfc() {
        let with = |at: usize, value: u8| {
            let mut octets = PACKET.encode();
            octets[at] = value;
            Packet::decode(&octets).unwrap_err()
        };
        assert_eq!(with(0, 0x43), PacketError::Version(2));
        assert_eq!(with(3, 25), PacketError::Short);
        assert_eq!(with(3, 23), PacketError::Length(23));
        assert_eq!(with(1, 0xac), PacketError::Authenticated);
        assert_eq!(with(2, 0), PacketError::DetectMult);
        assert_eq!(with(1, 0xa9), PacketError::Multipoint);
        assert_eq!(Packet::decode(&PACKET.encode()[..23]), Err(PacketError::Short));
        let zero = |p: Packet| Packet::decode(&p.encode());
        assert_eq!(zero(Packet { my_discriminator: 0, ..PACKET }), Err(PacketError::MyDiscriminator));
        assert_eq!(zero(Packet { your_discriminator: 0, ..PACKET }), Err(PacketError::YourDiscriminator));
        assert!(zero(Packet { your_discriminator: 0, state: State::Down, ..PACKET }).is_ok());
    }

    #[test]
    fn any_octets_decode_to_themselves_or_to_an_error() {
        let mut x = 1_u64;
        for _ in 0..20_000 {
            let mut octets = PACKET.encode();
            for _ in 0..3 {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                octets[(x >> 33) as usize % LENGTH] = (x >> 25) as u8;
            }
            if let Ok(packet) = Packet::decode(&octets) {
                assert_eq!(packet.encode(), octets);
            }
        }
    }
}
