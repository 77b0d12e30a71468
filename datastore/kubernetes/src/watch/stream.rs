//! The stream of a watch: one JSON object on each line.

use super::Stop;
use crate::cluster::Cluster;
use crate::error::Failure;
use crate::link::Call;
use crate::place::Source;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// After so long the server ends a watch (it would do so by itself within an hour).
const LONGEST: u64 = 300;
/// Longest line that is taken: an object of 3 MiB in JSON's longest spelling.
const LINE: usize = 16 << 20;
/// Bound on the reason of a refusal.
const REASON: Duration = Duration::from_secs(5);

/// What a line tells.
pub(crate) enum Kind {
    /// Of the revision alone.
    Bookmark,
    Present,
    Removed,
}

pub(crate) struct Stream {
    body: Body,
    /// What came and was not told yet; up to `told` it was.
    buffer: Vec<u8>,
    told: usize,
    silence: Duration,
}

impl Stream {
    pub async fn open(cluster: &Cluster, source: &Source, from: &str) -> Result<Self, Stop> {
        let path = format!(
            "{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={LONGEST}&resourceVersion={from}{}",
            source.path(),
            source.selectors()
        );
        let (code, body) = cluster.link.open(&Call::get(path)).await?;
        match code {
            200 => {
                let silence = cluster.link.watch_silence;
                Ok(Self { body, buffer: Vec::new(), told: 0, silence })
            }
            410 => Err(Stop::Expired),
            code => Err(refusal(code, body).await.into()),
        }
    }

    /// `None`: the server ended the watch, or the connection is or may be dead.
    pub async fn next(&mut self) -> Result<Option<(Kind, Value)>, Stop> {
        loop {
            if let Some(line) = self.line() {
                return read(&line).map(Some);
            }
            let Ok(Some(Ok(frame))) = timeout(self.silence, self.body.frame()).await else { return Ok(None) };
            if let Ok(data) = frame.into_data() {
                self.buffer.drain(..std::mem::take(&mut self.told));
                self.buffer.extend_from_slice(&data);
            }
            if self.buffer.len() > LINE {
                return Err(Failure::corrupt("the watch sends a line without end").into());
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let rest = &self.buffer[self.told..];
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let line = rest[..length].to_vec();
        self.told += length + 1;
        Some(line)
    }
}

async fn refusal(code: u16, body: Body) -> Failure {
    match timeout(REASON, body.collect()).await {
        Ok(Ok(body)) => Failure::answer(code, &body.to_bytes()),
        _ => Failure::answer(code, b""),
    }
}

fn read(line: &[u8]) -> Result<(Kind, Value), Stop> {
    let mut event: Value = serde_json::from_slice(line)
        .map_err(|e| Failure::corrupt(format!("the watch sends no JSON: {e}")))?;
    let object = event.get_mut("object").map(Value::take).unwrap_or_default();
    match event.get("type").and_then(Value::as_str) {
        Some("BOOKMARK") => Ok((Kind::Bookmark, object)),
        Some("ADDED" | "MODIFIED") => Ok((Kind::Present, object)),
        Some("DELETED") => Ok((Kind::Removed, object)),
        _ => Err(error(&object)),
    }
}

fn error(status: &Value) -> Stop {
    let code = status.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    match code {
        Some(410) => Stop::Expired,
        code => Failure::answer(code.unwrap_or(500), status.to_string().as_bytes()).into(),
    }
}
