//! Felix's rules in what `iptables-save` prints, and the input of `iptables-restore --noflush` that removes them.
//!
//! Felix marks everything that it writes: its chains are called `cali-...`, its rules in others' chains have the
//! comment `cali:HASH` or lead to such a chain.

use std::fmt::Write as _;

/// What removes Felix's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// For `iptables-restore --noflush`: each table is one transaction.
    pub script: String,
    pub chains: usize,
    /// The policy of the filter table's FORWARD is DROP: Felix's rules may be all that lets pods through.
    pub forward_drops: bool,
}

const CHAIN: &str = "cali-";

/// `None`: there is nothing of Felix's. Any text will do; what is not understood is left alone.
pub fn removal(saved: &str) -> Option<Removal> {
    let mut removal = Removal::default();
    let mut table = Table::default();
    for line in saved.lines() {
        match line.split_at_checked(1) {
            Some(("*", name)) => table = Table { name, ..Table::default() },
            Some((":", rest)) => table.chain(rest, &mut removal),
            _ if line == "COMMIT" => std::mem::take(&mut table).finish(&mut removal),
            _ => table.rule(line),
        }
    }
    (!removal.script.is_empty()).then_some(removal)
}

#[derive(Default)]
struct Table<'a> {
    name: &'a str,
    chains: Vec<&'a str>,
    rules: Vec<&'a str>,
}

impl<'a> Table<'a> {
    /// `NAME POLICY [PACKETS:BYTES]`.
    fn chain(&mut self, line: &'a str, removal: &mut Removal) {
        let mut words = line.split(' ');
        let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if name.starts_with(CHAIN) {
            self.chains.push(name);
        }
        removal.forward_drops |= self.name == "filter" && name == "FORWARD" && policy == "DROP";
    }

    /// `-A CHAIN ...`, of a chain that is not Felix's.
    fn rule(&mut self, line: &'a str) {
        let Some(rule) = line.strip_prefix("-A ") else { return };
        if !rule.starts_with(CHAIN) && is_felix(rule) {
            self.rules.push(rule);
        }
    }

    /// A chain that is named is emptied first, so that none is in use when it goes.
    fn finish(self, removal: &mut Removal) {
        if self.chains.is_empty() && self.rules.is_empty() {
            return;
        }
        let mut text = format!("*{}\n", self.name);
        let mut put = |line: std::fmt::Arguments<'_>| {
            writeln!(text, "{line}").expect("writing to a String cannot fail");
        };
        self.chains.iter().for_each(|name| put(format_args!(":{name} - [0:0]")));
        self.rules.iter().for_each(|rule| put(format_args!("-D {rule}")));
        self.chains.iter().for_each(|name| put(format_args!("-X {name}")));
        put(format_args!("COMMIT"));
        removal.script.push_str(&text);
        removal.chains += self.chains.len();
    }
}

fn is_felix(rule: &str) -> bool {
    let mut words = rule.split(' ').peekable();
    while let Some(word) = words.next() {
        let next = words.peek().copied().unwrap_or_default();
        let marked = word == "--comment" && next.trim_start_matches('"').starts_with("cali:");
        if marked || (matches!(word, "-j" | "-g") && next.starts_with(CHAIN)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\nCOMMIT\n\
        *filter\n:FORWARD ACCEPT [1:2]\n:cali-FORWARD - [0:0]\n:cali-fw-x - [0:0]\n\
        -A FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD\n\
        -A FORWARD -m comment --comment \"mine: cali: too\" -j ACCEPT\n\
        -A FORWARD -m comment --comment \"cali:S93hcgKJrXEqnTfs\" -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
        -A cali-FORWARD -i cali+ -j cali-fw-x\nCOMMIT\n";

    #[test]
    fn only_felixs_go() {
        let removal = removal(SAVED).unwrap();
        assert_eq!((removal.chains, removal.forward_drops), (2, false));
        assert_eq!(
            removal.script,
            "*filter\n:cali-FORWARD - [0:0]\n:cali-fw-x - [0:0]\n\
             -D FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD\n\
             -D FORWARD -m comment --comment \"cali:S93hcgKJrXEqnTfs\" -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
             -X cali-FORWARD\n-X cali-fw-x\nCOMMIT\n"
        );
    }

    #[test]
    fn a_strict_policy_is_told() {
        let strict = SAVED.replace(":FORWARD ACCEPT", ":FORWARD DROP");
        assert!(removal(&strict).unwrap().forward_drops);
        assert_eq!(removal("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"), None, "nothing of Felix's");
        assert_eq!(removal("-A\n:\n*\nCOMMIT\nCOMMIT"), None);
    }
}
