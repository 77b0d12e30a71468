//! The container runtime's own list of sandboxes, by the Container Runtime Interface (CRI v1, gRPC over
//! a unix socket; `runtime.v1.RuntimeService` of k8s.io/cri-api).

use anyhow::{Context as _, Result, bail};
use hyper_util::rt::TokioIo;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;

/// Where runtimes listen, in the order in which they are tried.
const USUAL: [&str; 3] = ["/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock"];
const LIMIT: Duration = Duration::from_secs(10);
const LIST: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
/// A sandbox takes about a kilobyte in the answer.
const MAX_ANSWER: usize = 64 << 20;

/// All of them: no filter.
#[derive(Clone, PartialEq, prost::Message)]
struct ListPodSandboxRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodSandbox>,
}

/// The members that are of use here; others are passed over.
#[derive(Clone, PartialEq, prost::Message)]
struct PodSandbox {
    #[prost(string, tag = "1")]
    id: String,
}

/// The ids of all sandboxes that the runtime knows, in whatever state.
///
/// # Errors
/// No runtime answers: then nothing is known, which is not the same as none.
pub(super) fn sandboxes(socket: Option<&Path>) -> Result<BTreeSet<String>> {
    let socket = match socket {
        Some(path) => path.to_owned(),
        None => usual()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async { tokio::time::timeout(LIMIT, list(socket.clone())).await });
    asked
        .context("no answer in time")
        .flatten()
        .with_context(|| format!("the runtime at {}", socket.display()))
}

fn usual() -> Result<PathBuf> {
    match USUAL.iter().map(Path::new).find(|path| path.exists()) {
        Some(path) => Ok(path.to_owned()),
        None => bail!("no container runtime was found; name its socket with --cri-socket"),
    }
}

async fn list(socket: PathBuf) -> Result<BTreeSet<String>> {
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The name is not looked up: the connector above decides.
    let channel = Endpoint::from_static("http://runtime").connect_with_connector(connect).await?;
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
    client.ready().await?;
    let codec = tonic_prost::ProstCodec::<ListPodSandboxRequest, ListPodSandboxResponse>::default();
    let request = tonic::Request::new(ListPodSandboxRequest {});
    let answer = client.unary(request, PathAndQuery::from_static(LIST), codec).await?;
    Ok(answer.into_inner().items.into_iter().map(|sandbox| sandbox.id).collect())
}
