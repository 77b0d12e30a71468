//! Requests: over TLS, with the token, repeated within the deadline.
//!
//! A request that was lost on its way may have had its effect. All of ours can be sent again: each
//! names the revision or the absence that it expects, so that its second effect is a conflict, and
//! the answer says that the request was repeated.

mod patience;

use crate::config::Config;
use crate::error::Failure;
use crate::token::Token;
use datastore::ErrorKind;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, Client, ConfigExt as _};
use patience::{Lost, first_bound};
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// Bound on connecting.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a server that cannot be reached is tried again, and twice if it has answered before.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pauses between attempts, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Connections are asked for a sign of life when they are silent for so long, and as often again.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVES: u32 = 3;

/// The server sends a bookmark about every minute.
const SILENCE: Duration = Duration::from_secs(75);

/// Requests sent, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Of one object.
    pub gets: u64,
    /// Pages of lists, and starts of watches.
    pub lists: u64,
    pub writes: u64,
    /// Those among them that were sent because an earlier attempt was of no use.
    pub repeated: u64,
}

pub(crate) struct Link {
    client: Client,
    token: Token,
    /// See [`Config::watch_silence`].
    pub watch_silence: Duration,
    /// Whether the server ever answered.
    answered: AtomicBool,
    /// Why the last attempt of a call that goes on was of no use.
    trouble: Mutex<Option<String>>,
    gets: AtomicU64,
    lists: AtomicU64,
    writes: AtomicU64,
    repeated: AtomicU64,
}

/// A request that may be sent several times.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub body: Option<Vec<u8>>,
    /// Media type of the body.
    pub content: &'static str,
    pub accept: &'static str,
}

pub(crate) const JSON: &str = "application/json";
const PATCH: &str = "application/strategic-merge-patch+json";

impl Call {
    pub fn get(path: String) -> Self {
        Self { method: Method::GET, path, body: None, content: JSON, accept: JSON }
    }

    pub fn with(method: Method, path: String, body: &Value) -> Self {
        Self { method, path, body: Some(body.to_string().into_bytes()), content: JSON, accept: JSON }
    }

    /// Merges the members of `body` into an object.
    pub fn patch(path: String, body: &Value) -> Self {
        Self { content: PATCH, ..Self::with(Method::PATCH, path, body) }
    }

    fn is_list(&self) -> bool {
        self.method == Method::GET && self.path.contains('?')
    }
}

pub(crate) struct Answer {
    pub code: u16,
    pub body: Vec<u8>,
    /// An earlier attempt may have had the effect already.
    pub repeated: bool,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }

    pub fn failure(&self) -> Failure {
        Failure::answer(self.code, &self.body)
    }

    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|e| Failure::new(ErrorKind::Io, format!("the answer is no JSON: {e}")))
    }
}

/// Why an attempt is to be repeated.
struct Again {
    failure: Failure,
    /// What the server asks to wait.
    wait: Option<Duration>,
    /// The server did not answer at all.
    lost: Option<Lost>,
}

impl Link {
    pub async fn new(config: &Config) -> Result<Self, Failure> {
        let watch_silence = config.watch_silence.unwrap_or(SILENCE);
        let (config, source) = config.load().await?;
        Ok(Self {
            client: client(&config).map_err(|e| Failure::invalid(e.to_string()))?,
            token: Token::new(source),
            watch_silence,
            answered: AtomicBool::new(false),
            trouble: Mutex::new(None),
            gets: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
        })
    }

    pub fn calls(&self) -> Calls {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Calls {
            gets: count(&self.gets),
            lists: count(&self.lists),
            writes: count(&self.writes),
            repeated: count(&self.repeated),
        }
    }

    /// Sends until there is an answer that is no reason to wait. The caller's deadline ends it.
    pub async fn call(&self, call: &Call) -> Result<Answer, Failure> {
        let (mut alive, mut pause, mut repeated) = (Instant::now(), FIRST_PAUSE, false);
        let mut bound = first_bound(call);
        for attempt in 0_u32.. {
            let again = match self.attempt(call, bound).await? {
                Ok((code, body)) => {
                    self.answered.store(true, Ordering::Relaxed);
                    self.set_trouble(None);
                    return Ok(Answer { code, body, repeated });
                }
                Err(again) => again,
            };
            // A kept connection may be stale, one that was made just now is not.
            let once_more = attempt == 0 && self.answered.load(Ordering::Relaxed);
            match again.lost {
                Some(Lost::Dead) => return Err(again.failure),
                Some(Lost::Broken) if once_more || alive.elapsed() + pause <= PATIENCE => {}
                Some(Lost::Broken) => return Err(again.failure),
                Some(Lost::Slow) => (alive, bound) = (Instant::now(), bound * 2),
                None => alive = Instant::now(),
            }
            self.set_trouble(Some(again.failure.detail));
            // A refusal (429, 503) had no effect; a lost request and other failures may have had.
            repeated |= again.lost.is_some() || again.wait.is_none();
            self.repeated.fetch_add(1, Ordering::Relaxed);
            sleep(again.wait.unwrap_or(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(Failure::late())
    }

    /// The token in use.
    pub fn token(&self) -> Option<String> {
        let header = self.token.header().ok().flatten()?;
        header.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned)
    }

    /// What a call that ran out of time was waiting for.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().expect("nobody panics while holding it").clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().expect("nobody panics while holding it") = trouble;
    }

    /// Starts a watch: sends once, with another token if the first was refused.
    pub async fn open(&self, call: &Call) -> Result<(u16, Body), Failure> {
        let mut response = self.head(call, first_bound(call)).await.map_err(|(_, failure)| failure)?;
        if response.status().as_u16() == 401 && self.token.renewed() {
            response = self.head(call, first_bound(call)).await.map_err(|(_, failure)| failure)?;
        }
        Ok((response.status().as_u16(), response.into_body()))
    }

    /// The resources of a group and version, by discovery, which every account may ask for; and the answer's code.
    pub async fn resources(&self, api: &str) -> Result<(u16, Vec<String>), Failure> {
        let call = Call::get(format!("/apis/{api}"));
        // Sent once, whatever the answer.
        let (code, _, body) =
            self.exchange(&call, first_bound(&call)).await.map_err(|(_, failure)| failure)?;
        let list: Value = serde_json::from_slice(&body).unwrap_or_default();
        let resources = list.get("resources").and_then(Value::as_array).into_iter().flatten();
        let name = |resource: &Value| resource.get("name")?.as_str().map(str::to_owned);
        Ok((code, resources.filter_map(name).collect()))
    }

    async fn attempt(&self, call: &Call, bound: Duration) -> Result<Result<(u16, Vec<u8>), Again>, Failure> {
        let (code, wait, body) = match self.exchange(call, bound).await {
            Ok(answer) => answer,
            Err((Lost::Broken, failure)) if failure.kind != ErrorKind::Unreachable => return Err(failure),
            Err((lost, failure)) => return Ok(Err(Again { failure, wait: None, lost: Some(lost) })),
        };
        let failure = Failure::answer(code, &body);
        Ok(match code {
            401 if self.token.renewed() => Err(Again { failure, wait: Some(Duration::ZERO), lost: None }),
            401 | 403 => return Err(failure),
            429 | 500.. if failure.kind != ErrorKind::Full => Err(Again { failure, wait, lost: None }),
            _ => Ok((code, body)),
        })
    }

    /// Sends once: the code, what the server asks to wait, and the body.
    async fn exchange(
        &self,
        call: &Call,
        bound: Duration,
    ) -> Result<(u16, Option<Duration>, Vec<u8>), (Lost, Failure)> {
        let response = self.head(call, bound).await?;
        let (code, wait) = (response.status().as_u16(), retry_after(response.headers()));
        let (mut stream, mut body) = (response.into_body(), Vec::new());
        loop {
            let frame = async { stream.frame().await.transpose().map_err(|e| Failure::transport(&e)) };
            let Some(frame) = self.patiently(bound, frame).await? else { return Ok((code, wait, body)) };
            body.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
    }

    /// Sends once; the body of the answer is still to come.
    async fn head(&self, call: &Call, bound: Duration) -> Result<Response<Body>, (Lost, Failure)> {
        self.count(call);
        self.patiently(bound, self.put(call)).await
    }

    async fn put(&self, call: &Call) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(&call.method).uri(&call.path).header(ACCEPT, call.accept);
        if let Some(token) = self.token.header()? {
            request = request.header(AUTHORIZATION, token);
        }
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, call.content);
        }
        let request = request.body(Body::from(call.body.clone().unwrap_or_default()));
        let request = request.map_err(|e| Failure::invalid(format!("{}: {e}", call.path)))?;
        self.client.send(request).await.map_err(|e| Failure::transport(&e))
    }

    fn count(&self, call: &Call) {
        let counter = match call.method {
            Method::GET if call.is_list() => &self.lists,
            Method::GET => &self.gets,
            _ => &self.writes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The seconds that the server asks to wait, within reason.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(30)))
}

/// Found without the C library, so also in a static program; the port is the connector's.
async fn addresses(host: String) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    datastore_resolve::addresses(&host, 0).await.map(Vec::into_iter)
}

/// The client of the `kube` crate over connections that notice when the other side is gone.
fn client(config: &kube::Config) -> Result<Client, kube::Error> {
    let resolver = service_fn(|name: Name| addresses(name.as_str().to_owned()));
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(KEEPALIVES));
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(tls);
    let based = config.base_uri_layer().layer(http);
    let namespace = config.default_namespace.clone();
    Ok(match config.auth_layer()? {
        Some(login) => Client::new(login.layer(based.map_err(tower::BoxError::from)), namespace),
        None => Client::new(based, namespace),
    })
}
