//! How long an answer is waited for.
//!
//! Before the first byte of a list a server may work for many seconds, and under load for anything; a dead one is
//! as silent. So a silence leads to a question that costs the server nothing, on another connection: while that is
//! answered the wait goes on, and what has been done for us is not thrown away.

use super::{Call, Link};
use crate::error::Failure;
use datastore::ErrorKind;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Silence after which the server is asked for a sign of life, and bound on that.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// First bound on the silence of a list while the server lives: as long as TCP's probes take to find the
/// connection dead. Other requests cost the server little, and past `ANSWER` go again over another connection.
const LIST: Duration = Duration::from_secs(20);
/// Everybody may ask for it, no queue holds it, and it fails when the server's etcd does not answer.
const SIGN_OF_LIFE: &str = "/livez";

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The connection could not be made, or broke.
    Broken,
    /// The server gives no sign of life either.
    Dead,
    /// It does, but the answer did not come within the bound.
    Slow,
}

/// Bound on the silence of the first attempt.
pub(super) fn first_bound(call: &Call) -> Duration {
    if call.is_list() { LIST } else { ANSWER }
}

impl Link {
    /// Waits for a step of an exchange for `bound` while the server lives.
    pub(super) async fn patiently<T>(
        &self,
        bound: Duration,
        step: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, (Lost, Failure)> {
        let (began, mut step) = (Instant::now(), pin!(step));
        let broken = |failure| (Lost::Broken, failure);
        loop {
            if let Ok(done) = timeout(ANSWER, &mut step).await {
                return done.map_err(broken);
            }
            match first(step.as_mut(), pin!(self.lives())).await {
                Ok(done) => return done.map_err(broken),
                Err(false) => return Err((Lost::Dead, Failure::late())),
                Err(true) if began.elapsed() < bound => {}
                Err(true) => {
                    return Err((
                        Lost::Slow,
                        Failure::new(ErrorKind::Timeout, "the server lives but is slow"),
                    ));
                }
            }
        }
    }

    async fn lives(&self) -> bool {
        let asked = timeout(ANSWER, self.put(&Call::get(SIGN_OF_LIFE.to_owned()))).await;
        matches!(asked, Ok(Ok(answer)) if !answer.status().is_server_error())
    }
}

/// The outcome of whichever ends first.
async fn first<A, B>(
    mut a: Pin<&mut impl Future<Output = A>>,
    mut b: Pin<&mut impl Future<Output = B>>,
) -> Result<A, B> {
    poll_fn(|cx| match a.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => b.as_mut().poll(cx).map(Err),
    })
    .await
}
