//! NOTIFICATION: RFC 4271 sections 4.5 and 6, RFC 4486, RFC 7313, RFC 8538, RFC 9003.

use std::fmt;

/// Why a session ends, as the wire says it. Unknown codes and subcodes are kept as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    Header(HeaderError),
    Open(OpenError),
    Update(UpdateError),
    HoldTimerExpired,
    /// RFC 6608: the state in which the unexpected message came.
    Fsm(FsmError),
    Cease(Cease),
    /// RFC 7313 section 5: ROUTE-REFRESH with a wrong length.
    RefreshLength,
    Other(u8, u8),
}

macro_rules! subcodes {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $value:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($variant = $value),+ }
        impl $name {
            pub(crate) const ALL: &'static [$name] = &[$($name::$variant),+];
            fn from_wire(value: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| *v as u8 == value)
            }
        }
    };
}

subcodes!(
    /// Code 1, RFC 4271 section 6.1.
    HeaderError { NotSynchronized = 1, BadLength = 2, BadType = 3 }
);
subcodes!(
    /// Code 2, RFC 4271 section 6.2; capability from RFC 5492.
    OpenError {
        Unspecific = 0, Version = 1, PeerAs = 2, RouterId = 3, Parameter = 4, HoldTime = 6, Capability = 7,
    }
);
subcodes!(
    /// Code 3, RFC 4271 section 6.3. Only those that RFC 7606 leaves as a session reset are ever sent.
    UpdateError {
        MalformedList = 1, UnrecognizedWellKnown = 2, MissingWellKnown = 3, Flags = 4, Length = 5, Origin = 6,
        NextHop = 8, OptionalAttribute = 9, NetworkField = 10, AsPath = 11,
    }
);
subcodes!(
    /// Code 5, RFC 6608.
    FsmError { Unspecified = 0, InOpenSent = 1, InOpenConfirm = 2, InEstablished = 3 }
);
subcodes!(
    /// Code 6, RFC 4486 section 4; hard reset from RFC 8538, BFD down from RFC 9384.
    Cease {
        MaxPrefixes = 1, Shutdown = 2, PeerDeconfigured = 3, Reset = 4, Rejected = 5, ConfigChange = 6,
        Collision = 7, OutOfResources = 8, HardReset = 9, BfdDown = 10,
    }
);

impl Code {
    /// Code and subcode as sent.
    pub fn to_wire(self) -> (u8, u8) {
        match self {
            Code::Header(e) => (1, e as u8),
            Code::Open(e) => (2, e as u8),
            Code::Update(e) => (3, e as u8),
            Code::HoldTimerExpired => (4, 0),
            Code::Fsm(e) => (5, e as u8),
            Code::Cease(e) => (6, e as u8),
            Code::RefreshLength => (7, 1),
            Code::Other(code, sub) => (code, sub),
        }
    }

    /// The meaning of a code and subcode; what is not known is `Other`.
    pub fn from_wire(code: u8, sub: u8) -> Code {
        let known = match code {
            1 => HeaderError::from_wire(sub).map(Code::Header),
            2 => OpenError::from_wire(sub).map(Code::Open),
            3 => UpdateError::from_wire(sub).map(Code::Update),
            4 if sub == 0 => Some(Code::HoldTimerExpired),
            5 => FsmError::from_wire(sub).map(Code::Fsm),
            6 => Cease::from_wire(sub).map(Code::Cease),
            7 if sub == 1 => Some(Code::RefreshLength),
            _ => None,
        };
        known.unwrap_or(Code::Other(code, sub))
    }
}

impl From<HeaderError> for Code {
    fn from(e: HeaderError) -> Code {
        Code::Header(e)
    }
}
impl From<OpenError> for Code {
    fn from(e: OpenError) -> Code {
        Code::Open(e)
    }
}
impl From<UpdateError> for Code {
    fn from(e: UpdateError) -> Code {
        Code::Update(e)
    }
}
impl From<FsmError> for Code {
    fn from(e: FsmError) -> Code {
        Code::Fsm(e)
    }
}
impl From<Cease> for Code {
    fn from(e: Cease) -> Code {
        Code::Cease(e)
    }
}

/// A NOTIFICATION message. A decoder's error is the one to send to the peer who is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct Notification {
    pub code: Code,
    pub data: Vec<u8>,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, sub) = self.to_wire();
        write!(f, "{self:?} ({code}/{sub})")
    }
}

/// RFC 9003 section 2: the longest communication, in octets of UTF-8.
const MAX_COMMUNICATION: usize = 255;

impl Notification {
    /// A notification without data.
    pub fn new(code: impl Into<Code>) -> Self {
        Notification { code: code.into(), data: Vec::new() }
    }

    /// A notification with data, as RFC 4271 section 6 asks for many of them.
    pub fn with_data(code: impl Into<Code>, data: &[u8]) -> Self {
        Notification { code: code.into(), data: data.to_vec() }
    }

    /// An administrative shutdown or reset that says why (RFC 9003). Longer text is cut at a character's end.
    pub fn with_communication(code: Cease, text: &str) -> Self {
        let end = text.floor_char_boundary(MAX_COMMUNICATION);
        let text = &text.as_bytes()[..end];
        let mut data = vec![u8::try_from(text.len()).expect("cut to 255 octets")];
        data.extend_from_slice(text);
        Notification { code: code.into(), data }
    }

    /// The operator's words in a shutdown or reset, also within a hard reset, if there are any and they are UTF-8.
    pub fn communication(&self) -> Option<&str> {
        const WORDY: [Code; 2] = [Code::Cease(Cease::Shutdown), Code::Cease(Cease::Reset)];
        let data = match (self.code, &self.data[..]) {
            (Code::Cease(Cease::HardReset), [code, sub, data @ ..])
                if WORDY.contains(&Code::from_wire(*code, *sub)) =>
            {
                data
            }
            (code, data) if WORDY.contains(&code) => data,
            _ => return None,
        };
        let (len, text) = data.split_first()?;
        std::str::from_utf8(text.get(..usize::from(*len))?).ok()
    }

    /// This notification inside a hard reset, which graceful restart does not survive (RFC 8538 section 3).
    pub fn hard_reset(&self) -> Notification {
        let (code, sub) = self.code.to_wire();
        let mut data = vec![code, sub];
        data.extend_from_slice(&self.data);
        Notification { code: Cease::HardReset.into(), data }
    }

    /// Decodes a message's body.
    pub(crate) fn decode(body: &[u8]) -> Option<Notification> {
        let [code, sub, data @ ..] = body else { return None };
        Some(Notification { code: Code::from_wire(*code, *sub), data: data.to_vec() })
    }

    /// Appends the body; data past what a message holds is cut.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let (code, sub) = self.code.to_wire();
        out.extend_from_slice(&[code, sub]);
        let room = super::MAX_MESSAGE - super::HEADER - 2;
        out.extend_from_slice(&self.data[..self.data.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in 0..=u8::MAX {
            for sub in 0..=u8::MAX {
                assert_eq!(Code::from_wire(code, sub).to_wire(), (code, sub));
            }
        }
    }

    #[test]
    fn communication_is_cut_at_a_character() {
        let long = "é".repeat(200);
        let n = Notification::with_communication(Cease::Shutdown, &long);
        assert_eq!(n.communication(), Some("é".repeat(127).as_str()));
    }

    #[test]
    fn communication_of_a_lying_length_or_bad_text_is_none() {
        let shutdown = |data: &[u8]| Notification::with_data(Cease::Shutdown, data);
        assert_eq!(shutdown(&[5, b'a']).communication(), None);
        assert_eq!(shutdown(&[1, 0xff]).communication(), None);
        assert_eq!(shutdown(&[]).communication(), None);
        assert_eq!(Notification::with_data(Cease::Collision, &[1, b'a']).communication(), None);
    }

    #[test]
    fn hard_reset_carries_the_reason() {
        let n = Notification::with_communication(Cease::Shutdown, "bye").hard_reset();
        assert_eq!((n.code.to_wire(), n.data.as_slice()), ((6, 9), &[6, 2, 3, b'b', b'y', b'e'][..]));
        assert_eq!(n.communication(), Some("bye"));
        assert_eq!(Notification::new(Cease::MaxPrefixes).hard_reset().communication(), None);
    }
}
