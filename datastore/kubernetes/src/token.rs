//! The bearer token: read again when its file changed, and after it was refused.

use crate::config::TokenSource;
use crate::error::Failure;
use http::HeaderValue;
use std::fs;
use std::sync::Mutex;
use std::time::SystemTime;

/// What tells that files are others than before.
type Stamps = Vec<Option<(SystemTime, u64)>>;

pub(crate) struct Token {
    source: TokenSource,
    now: Mutex<(Stamps, Option<HeaderValue>)>,
}

impl Token {
    pub fn new(source: TokenSource) -> Self {
        Self { source, now: Mutex::new((Vec::new(), None)) }
    }

    /// The `Authorization` header. A file that cannot be read leaves the last token in place: it may
    /// be about to be written.
    pub fn header(&self) -> Result<Option<HeaderValue>, Failure> {
        let mut now = self.now.lock().expect("nobody panics while holding the token");
        let stamps = self.stamps();
        if now.1.is_none() || stamps != now.0 {
            match self.read() {
                Ok(header) => *now = (stamps, header),
                Err(failure) if now.1.is_none() => return Err(failure),
                Err(_) => {}
            }
        }
        Ok(now.1.clone())
    }

    /// The token was refused: whether there is another one by now.
    pub fn renewed(&self) -> bool {
        let read = self.read();
        let mut now = self.now.lock().expect("nobody panics while holding the token");
        match read {
            Ok(header) if header.is_some() && header != now.1 => {
                now.1 = header;
                true
            }
            _ => false,
        }
    }

    fn stamps(&self) -> Stamps {
        let stamp = |file| fs::metadata(file).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        self.source.files().iter().map(stamp).collect()
    }

    fn read(&self) -> Result<Option<HeaderValue>, Failure> {
        let Some(token) = self.source.read()? else { return Ok(None) };
        let mut header = HeaderValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_| Failure::invalid("the token has characters that no token has"))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}
