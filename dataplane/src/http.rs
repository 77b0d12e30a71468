//! `/liveness`, `/readiness`, `/status` and `/metrics`, by hyper on one thread.

use crate::config::Config;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use peering::control::Daemon;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// A client that has not asked within this time is dropped.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// Pause between two tries to take an address: the daemon before this one may still hold it.
const PAUSE: Duration = Duration::from_secs(1);
/// Most connections of one address at once.
const MAX_CONNECTIONS: usize = 64;

#[derive(Clone)]
struct Site {
    health: Health,
    metrics: Metrics,
    /// The health endpoint does not show metrics, and the other way round.
    with_health: bool,
    with_metrics: bool,
}

/// Starts the thread that answers.
///
/// # Errors
/// When there is no thread or no runtime to be had.
pub(crate) fn start(
    config: &Config,
    health: &Health,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("http")?;
    let sites = sites(config, health, metrics);
    let shutdown = shutdown.clone();
    let serve = move || {
        runtime.block_on(async {
            let tasks: Vec<_> =
                sites.into_iter().map(|(address, site)| tokio::spawn(listen(address, site))).collect();
            shutdown.wait_async().await;
            tasks.iter().for_each(tokio::task::JoinHandle::abort);
        });
    };
    std::thread::Builder::new().name("http".into()).spawn(serve).context("http")
}

fn sites(config: &Config, health: &Health, metrics: &Metrics) -> Vec<(SocketAddr, Site)> {
    let site = |with_health, with_metrics| Site {
        health: health.clone(),
        metrics: metrics.clone(),
        with_health,
        with_metrics,
    };
    match (config.health_addr, config.metrics_addr) {
        (Some(health), Some(metrics)) if health == metrics => vec![(health, site(true, true))],
        (health, metrics) => {
            let health = health.map(|address| (address, site(true, false)));
            health.into_iter().chain(metrics.map(|address| (address, site(false, true)))).collect()
        }
    }
}

async fn listen(address: SocketAddr, site: Site) {
    let listener = bind(address).await;
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let site = site.clone();
                tokio::spawn(async move {
                    answer_all(stream, site).await;
                    drop(place);
                });
            }
            // Out of descriptors: others give some back.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn bind(address: SocketAddr) -> TcpListener {
    let mut said = false;
    loop {
        match bind_once(address).await {
            Ok(listener) => {
                let at = listener.local_addr().unwrap_or(address);
                tracing::info!(%at, "listening for health and metrics requests");
                return listener;
            }
            Err(e) if !said => tracing::warn!(%address, "cannot listen, trying on: {e}"),
            Err(_) => {}
        }
        said = true;
        tokio::time::sleep(PAUSE).await;
    }
}

/// All addresses means those of IPv4 on a host without IPv6.
async fn bind_once(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(e) if address.is_ipv6() && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| e)
        }
        bound => bound,
    }
}

async fn answer_all(stream: TcpStream, site: Site) {
    let service = service_fn(move |request| {
        let response = site.answer(&request);
        async { Ok::<_, Infallible>(response) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(ASK_WITHIN).max_buf_size(16 * 1024);
    // A client that breaks off is no matter.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

impl Site {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match request.uri().path() {
            "/liveness" if self.with_health => verdict(self.health.hung()),
            "/readiness" if self.with_health => verdict(self.health.not_ready()),
            "/status" if self.with_health => plain(StatusCode::OK, self.status().into()),
            "/metrics" if self.with_metrics => plain(StatusCode::OK, self.metrics.text().into()),
            _ => plain(StatusCode::NOT_FOUND, "no such page\n".into()),
        }
    }
}

impl Site {
    /// All that is known, as JSON.
    fn status(&self) -> String {
        let status = Daemon {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            not_ready: self.health.not_ready(),
            hung: self.health.hung(),
            warnings: self.health.warnings(),
        };
        serde_json::to_string(&status).expect("texts can be written as JSON") + "\n"
    }
}

/// 204, or 503 with the reasons, a line each.
fn verdict(reasons: Vec<String>) -> Response<Full<Bytes>> {
    match reasons.is_empty() {
        true => plain(StatusCode::NO_CONTENT, Bytes::new()),
        false => plain(StatusCode::SERVICE_UNAVAILABLE, (reasons.join("\n") + "\n").into()),
    }
}

fn plain(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let text = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}
