//! How much of Calico's work is ours on this node: the word that `percale-install` leaves in the state directory.
//! Without it the node was never Calico's, and all of it is.

use crate::context::Context;
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Named by `install::set::STAGE_FILE` too.
const FILE: &str = "take-over";
const TURN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Never Calico's.
    Own,
    /// Plugin and IPAM; calico-node routes and enforces, and we touch nothing of that.
    Plugin,
    /// Calico-node's work as well.
    All,
    /// Calico's again.
    GivenBack,
}

impl Stage {
    /// A word that is not understood is a newer installer's: then nothing of Calico's is touched.
    pub fn read(state_dir: &Path) -> Self {
        let text = match fs::read_to_string(state_dir.join(FILE)) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Self::Own,
            Err(_) => return Self::Plugin,
        };
        match text.trim() {
            "all" => Self::All,
            "given-back" => Self::GivenBack,
            _ => Self::Plugin,
        }
    }

    /// Whether routes, tunnels, rules and BGP are ours.
    pub fn is_network(self) -> bool {
        matches!(self, Self::Own | Self::All)
    }

    /// Whether the plugin may ask us.
    pub fn is_serving(self) -> bool {
        self != Self::GivenBack
    }

    /// Whether Felix's chains are looked for.
    pub fn sees_felix(self) -> bool {
        matches!(self, Self::All | Self::GivenBack)
    }

    pub fn always(self) -> bool {
        true
    }
}

/// Ends the daemon when the stage changes, so that it starts again with the parts of the new one.
pub(crate) fn run(context: &Arc<Context>) -> Result<()> {
    while !context.shutdown.wait(TURN) {
        let now = Stage::read(&context.state_dir);
        if now != context.stage {
            tracing::info!(before = ?context.stage, ?now, "the take-over has gone on; starting again");
            context.shutdown.set();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_decides() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Stage::read(dir.path()), Stage::Own);
        for (word, stage) in [
            ("plugin\n", Stage::Plugin),
            ("all", Stage::All),
            ("given-back\n", Stage::GivenBack),
            ("later", Stage::Plugin),
        ] {
            fs::write(dir.path().join(FILE), word).unwrap();
            assert_eq!(Stage::read(dir.path()), stage, "{word}");
        }
    }
}
