//! What must hold for every answer of a kernel, for the fuzz targets.

use crate::reply::{Reply, next_message, verdict};
use crate::{fib_events, inspect, link, monitor, table_content, wireguard};

/// Messages as they come from a netlink socket: each is read in every way that there is. Nothing may panic,
/// what is read is no larger than what was given, and a set of WireGuard's peers is one however it is cut.
pub fn replies(bytes: &[u8]) {
    let mut rest = bytes;
    let mut all = Vec::new();
    while let Some((header, body, tail)) = next_message(rest) {
        assert!(tail.len() < rest.len(), "every message takes some bytes");
        rest = tail;
        if let Some((errno, words)) = verdict(header, body) {
            assert!(errno.raw_os_error() > 0 && words.len() <= 3 * body.len());
        }
        all.push(Reply { kind: header.kind, body: body.to_vec() });
    }
    for reply in &all {
        let _ = (monitor::report(reply), link::parse(reply), inspect::address(reply), inspect::route(reply));
        let _ = link::settings(reply);
        assert!(table_content::read_as_all(reply).len() <= 64 * (reply.body.len() + 1));
    }
    let mut events = Vec::new();
    fib_events::read_all(bytes, &mut events);
    assert!(events.len() <= all.len());
    let whole = wireguard::read(&all);
    let peers = all.iter().flat_map(|one| wireguard::read(std::slice::from_ref(one)).peers.into_keys());
    assert!(peers.into_iter().all(|key| whole.peers.contains_key(&key)));
}

#[cfg(test)]
mod tests {
    use super::replies;

    /// The first inputs of the fuzz target, cut off everywhere and with every byte changed.
    #[test]
    fn recorded_answers_cut_and_garbled_break_nothing() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/fuzz/netlink_reply");
        let mut count = 0;
        for file in std::fs::read_dir(seeds).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            for at in 0..bytes.len() {
                replies(&bytes[..at]);
                for change in [1, 0x80, 0xff] {
                    let mut garbled = bytes.clone();
                    garbled[at] ^= change;
                    replies(&garbled);
                }
                count += 1;
            }
            replies(&bytes);
        }
        assert!(count > 3000, "only {count} bytes of input");
    }
}
