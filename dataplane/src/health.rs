//! Is the daemon alive, and can pods be served: what the parts report, by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The registry; clones are the same.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Why each condition does not hold; `None`: it holds.
    conditions: BTreeMap<&'static str, Option<String>>,
    beats: BTreeMap<&'static str, Beat>,
    /// What is wrong though everything works, by who says so.
    warnings: BTreeMap<&'static str, Vec<String>>,
}

struct Beat {
    last: Instant,
    limit: Duration,
}

impl Health {
    /// Adds a condition of readiness, which does not hold until it is said to.
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition { health: self.clone(), name };
        condition.not_ready("starting");
        condition
    }

    /// Adds a sign of life: the daemon counts as hung when none came for `limit`.
    pub fn heartbeat(&self, name: &'static str, limit: Duration) -> Heartbeat {
        self.with(|state| state.beats.insert(name, Beat { last: Instant::now(), limit }));
        Heartbeat { health: self.clone(), name }
    }

    /// Says what is wrong though everything works, such as a setting, in place of what `name` said before.
    /// True when it is news.
    pub fn warn(&self, name: &'static str, what: Vec<String>) -> bool {
        self.with(|state| state.warnings.insert(name, what.clone()).unwrap_or_default() != what)
    }

    pub fn warnings(&self) -> Vec<String> {
        self.with(|state| state.warnings.values().flatten().cloned().collect())
    }

    /// What is not ready and why; empty: all is.
    pub fn not_ready(&self) -> Vec<String> {
        self.with(|state| {
            let reasons = state.conditions.iter();
            reasons.filter_map(|(name, why)| Some(format!("{name}: {}", why.as_ref()?))).collect()
        })
    }

    /// The parts that gave no sign of life in time; empty: all did.
    pub fn hung(&self) -> Vec<String> {
        let late = |(name, beat): (&&str, &Beat)| {
            let silent = beat.last.elapsed();
            (silent > beat.limit).then(|| format!("{name}: no sign of life for {} s", silent.as_secs()))
        };
        self.with(|state| state.beats.iter().filter_map(late).collect())
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One condition of readiness.
pub struct Condition {
    health: Health,
    name: &'static str,
}

impl Condition {
    pub fn ready(&self) {
        self.set(None);
    }

    /// `why` is shown to whoever asks, so it says what to do.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, why: Option<String>) {
        let before = self.health.with(|state| state.conditions.insert(self.name, why.clone()));
        match why {
            _ if before.as_ref() == Some(&why) => {}
            Some(why) => tracing::info!(condition = self.name, why, "not ready"),
            None => tracing::info!(condition = self.name, "ready"),
        }
    }
}

/// A part's sign of life. Dropped, the part is no longer waited for.
pub struct Heartbeat {
    health: Health,
    name: &'static str,
}

impl Heartbeat {
    pub fn beat(&self) {
        self.health.with(|state| {
            if let Some(beat) = state.beats.get_mut(self.name) {
                beat.last = Instant::now();
            }
        });
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.health.with(|state| state.beats.remove(self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_condition_holds() {
        let health = Health::default();
        let (a, b) = (health.condition("a"), health.condition("b"));
        a.ready();
        assert_eq!(health.not_ready(), ["b: starting"]);
        b.ready();
        assert_eq!(health.not_ready(), Vec::<String>::new());
        a.not_ready("gone");
        assert_eq!(health.not_ready(), ["a: gone"]);
    }

    #[test]
    fn warnings_do_not_make_it_unready_and_are_news_once() {
        let health = Health::default();
        assert!(!health.warn("settings", vec![]));
        assert!(health.warn("settings", vec!["vxlanPort: no number".into()]));
        assert!(!health.warn("settings", vec!["vxlanPort: no number".into()]));
        assert_eq!((health.warnings().len(), health.not_ready().len()), (1, 0));
        assert!(health.warn("settings", vec![]));
        assert_eq!(health.warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_silent_part_is_hung_and_a_finished_one_is_not() {
        let health = Health::default();
        let beat = health.heartbeat("loop", Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(health.hung().len(), 1);
        drop(beat);
        assert_eq!(health.hung().len(), 0);
    }
}
