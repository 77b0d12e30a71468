//! Between the kernel and the table.

use super::*;

impl Engine {
    /// There is something to read. Until it is read nothing more is heard of it, but that reports were lost.
    pub(super) fn kernel_reports(&mut self) {
        let wait = if self.reported.is_none() { GATHER } else { Duration::ZERO };
        self.reported = Some(Instant::now() + wait);
        self.listen_to_kernel(false);
    }

    fn listen_to_kernel(&self, read: bool) {
        let wanted = Ready { read, write: false };
        if let Err(error) = self.poller.change(self.topology.fd(), ROUTES, wanted) {
            tracing::error!(%error, "the kernel's routes cannot be followed");
        }
    }

    pub(super) fn kernel_changed(&mut self) {
        self.reported = None;
        self.listen_to_kernel(true);
        let changes = match self.topology.read() {
            Ok(changes) => changes,
            Err(error) => return tracing::warn!(%error, "cannot read the kernel's routes"),
        };
        if changes.pods {
            self.originate();
        }
        for (route, is_there) in &changes.ours {
            self.fib.seen(route, *is_there);
        }
        let Some(speaker) = &mut self.speaker else { return };
        if let Some(ours) = changes.all_ours {
            self.fib.resync(ours, speaker.rib());
        }
        if changes.ways {
            for (hop, reachable) in self.fib.resolve_again(&self.topology, speaker.rib()) {
                speaker.set_next_hop(hop, reachable.then_some(0));
            }
        }
    }

    /// From the table to the kernel.
    pub(super) fn routes(&mut self) {
        let Some(speaker) = &mut self.speaker else { return };
        let mut recursive = false;
        // What is found about next hops changes the choice, which may show further next hops.
        for _ in 0..8 {
            while let Some(prefix) = speaker.poll_changed() {
                recursive |= self.fib.is_recursive(&prefix);
                self.fib.mark(prefix);
            }
            let mut news = self.fib.learn_next_hops(&self.topology, speaker.rib());
            if std::mem::take(&mut recursive) {
                news.extend(self.fib.resolve_again(&self.topology, speaker.rib()));
            }
            if news.is_empty() {
                break;
            }
            for (hop, reachable) in news {
                speaker.set_next_hop(hop, reachable.then_some(0));
            }
        }
        self.fib.apply(&self.topology, speaker.rib());
    }
}
