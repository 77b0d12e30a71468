//! The cluster behind the endpoints: one link at a time, replaced when it fails.

use crate::config::{Config, Endpoint};
use crate::dial;
use crate::error::Failure;
use datastore::ErrorKind;
use etcd_client::{Channel, Client, ConnectOptions, GetOptions, KvClient, WatchClient};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::transport::Uri;

/// Bound on connecting to one endpoint: TCP, TLS, token and a first answer.
const CONNECT: Duration = Duration::from_secs(3);
/// Bound on one answer; past it the server counts as dead. etcd itself gives up after 7 s.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);
/// Pings of a connection with open calls or watches. etcd closes connections that ping more often
/// than every 5 s, or while idle (its `grpc-keepalive-min-time`).
const PING: Duration = Duration::from_secs(6);

/// Seen where a new connection ends at once; later ones are replaced.
const CLOSED: &str = "the server closed the connection (does it want TLS, or a client certificate?)";

pub(crate) struct Cluster {
    config: Config,
    subject: String,
    endpoints: Vec<Endpoint>,
    /// Endpoint to begin with; hosts spread by their process ids.
    first: AtomicUsize,
    link: Mutex<Option<Arc<Link>>>,
    id: OnceLock<u64>,
}

/// A connection to one server that has answered.
pub(crate) struct Link {
    pub kv: KvClient,
    pub watch: WatchClient,
    endpoint: usize,
}

impl Cluster {
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let endpoints = config.endpoints()?;
        Ok(Self {
            subject: config.subject(),
            config: config.clone(),
            first: AtomicUsize::new(std::process::id() as usize % endpoints.len()),
            endpoints,
            link: Mutex::new(None),
            id: OnceLock::new(),
        })
    }

    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The cluster's id, asked for if need be.
    pub async fn id(&self) -> Result<u64, Failure> {
        self.link().await?;
        Ok(*self.id.get().expect("a link sets the id"))
    }

    /// Asks something that may be asked twice, of every endpoint if need be.
    pub async fn read<T, F>(&self, ask: impl Fn(KvClient) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.ask(ask, |failure| failure.lost).await
    }

    /// Asks for a change. It is repeated only if it cannot have been made: a lost answer is an error.
    pub async fn write<T, F>(&self, ask: impl Fn(KvClient) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.ask(ask, |failure| failure.unapplied).await
    }

    async fn ask<T, F>(
        &self,
        ask: impl Fn(KvClient) -> F,
        again: impl Fn(&Failure) -> bool,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut tries = self.endpoints.len();
        loop {
            let link = self.link().await?;
            let failure = match timeout(ANSWER, ask(link.kv.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Failure::from(error),
                Err(_) => Failure::silent(),
            };
            if failure.lost {
                self.give_up(&link).await;
            }
            if tries == 0 || !again(&failure) {
                return Err(failure);
            }
            tries -= 1;
        }
    }

    /// The present link, or a new one.
    pub async fn link(&self) -> Result<Arc<Link>, Failure> {
        let mut link = self.link.lock().await;
        if let Some(link) = &*link {
            return Ok(link.clone());
        }
        let new = Arc::new(self.connect().await?);
        *link = Some(new.clone());
        Ok(new)
    }

    /// Forgets a link that failed, and begins elsewhere next time.
    pub async fn give_up(&self, failed: &Arc<Link>) {
        let mut link = self.link.lock().await;
        if link.as_ref().is_some_and(|link| Arc::ptr_eq(link, failed)) {
            *link = None;
            self.first.store((failed.endpoint + 1) % self.endpoints.len(), Ordering::Relaxed);
        }
    }

    /// Begins elsewhere next time: a deadline passed without an answer. Where a connection is being
    /// made just now, that is so already.
    pub fn distrust(&self) {
        if let Ok(mut link) = self.link.try_lock()
            && let Some(link) = link.take()
        {
            self.first.store((link.endpoint + 1) % self.endpoints.len(), Ordering::Relaxed);
        }
    }

    /// Tries every endpoint once.
    async fn connect(&self) -> Result<Link, Failure> {
        let first = self.first.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for i in 0..self.endpoints.len() {
            let i = (first + i) % self.endpoints.len();
            let tried = timeout(CONNECT, self.connect_to(i)).await;
            match tried.unwrap_or_else(|_| Err(Failure::unreachable("no answer in 3 seconds"))) {
                Ok(link) => {
                    self.first.store(i, Ordering::Relaxed);
                    return Ok(link);
                }
                Err(failure) => failures.push((i, failure)),
            }
        }
        Err(self.nobody(&failures))
    }

    /// Why no endpoint will do: a refusal says more than silence.
    fn nobody(&self, failures: &[(usize, Failure)]) -> Failure {
        let kinds = || failures.iter().map(|(_, failure)| failure.kind);
        let refusal = kinds().find(|kind| !matches!(kind, ErrorKind::Unreachable | ErrorKind::Timeout));
        let lines = failures.iter().map(|(i, failure)| {
            let endpoint = &self.endpoints[*i];
            format!("{}:{}: {}", endpoint.host, endpoint.port, failure.detail)
        });
        let detail = lines.collect::<Vec<_>>().join("; ");
        Failure { kind: refusal.unwrap_or(ErrorKind::Unreachable), ..Failure::unreachable(detail) }
    }

    async fn connect_to(&self, endpoint: usize) -> Result<Link, Failure> {
        let place = &self.endpoints[endpoint];
        let stream = dial::tcp(&place.host, place.port, CONNECT)
            .await
            .map_err(|e| Failure::unreachable(e.to_string()))?;
        let channel = Channel::Tonic(self.channel(place, stream).await?);
        let client = Client::from_channel(channel, Some(self.options())).await?;
        let kv = client.kv_client().max_decoding_message_size(usize::MAX);
        self.check_id(kv.clone()).await?;
        let watch = client.watch_client().max_decoding_message_size(usize::MAX);
        Ok(Link { kv, watch, endpoint })
    }

    async fn channel(
        &self,
        place: &Endpoint,
        stream: TcpStream,
    ) -> Result<tonic::transport::Channel, Failure> {
        let mut endpoint = tonic::transport::Endpoint::from(place.uri.clone())
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(CONNECT)
            .keep_alive_while_idle(false);
        if place.tls {
            endpoint =
                endpoint.tls_config(self.config.tls(&place.host)?).map_err(etcd_client::Error::from)?;
        }
        // One connection for each channel: a new one is made here, where the cluster's id is checked.
        let mut once = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = once.take().ok_or_else(|| io::Error::other(CLOSED));
            std::future::ready(stream)
        });
        Ok(endpoint.connect_with_connector(connector).await.map_err(etcd_client::Error::from)?)
    }

    fn options(&self) -> ConnectOptions {
        // A server that is cut off from the others refuses at once.
        let options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        match self.config.user.is_empty() {
            true => options,
            false => options.with_user(self.config.user.clone(), self.config.password.clone()),
        }
    }

    /// Asks the server for a key that every user of the store may read, and so for the cluster's id.
    async fn check_id(&self, mut kv: KvClient) -> Result<(), Failure> {
        let options = GetOptions::new().with_keys_only();
        let answer = kv.get(model::keys::cluster_information(), Some(options)).await?;
        let id = answer.header().map_or(0, |header| header.cluster_id());
        match *self.id.get_or_init(|| id) {
            known if known == id => Ok(()),
            known => {
                Err(Failure::invalid(format!("is of cluster {id:x}, and this store is cluster {known:x}")))
            }
        }
    }
}
