//! Firewalls of others that drop what pods send, and our own table that must be there.

use super::program;
use super::{Finding, Host};
use serde_json::Value;

const CHECK: &str = "firewall";
/// The plugin's table of family `inet`.
const OUR_TABLE: &str = "percale";

pub fn check(host: &Host<'_>) -> Vec<Finding> {
    let mut findings = match program::find("nft") {
        None => Vec::new(),
        Some(nft) => nftables(host, program::output(&nft, &["-j", "list", "ruleset"])),
    };
    // Asking loads no table: only where one is loaded is there something to ask for.
    for (proc, save, family) in [
        ("ip_tables_names", "iptables-legacy-save", "IPv4"),
        ("ip6_tables_names", "ip6tables-legacy-save", "IPv6"),
    ] {
        let loaded = host.read(format!("/proc/net/{proc}")).is_some_and(|names| !names.is_empty());
        if let (true, Some(program)) = (loaded, program::find(save)) {
            findings.extend(program::output(&program, &[]).ok().and_then(|text| legacy(&text, family)));
        }
    }
    findings
}

fn nftables(host: &Host<'_>, answer: Result<String, String>) -> Vec<Finding> {
    let unreadable = |why: String| {
        let text = "foreign firewalls and our own table could not be looked at";
        vec![Finding::note(CHECK, why, text, "run as root".to_owned())]
    };
    let text = match answer {
        Ok(text) => text,
        Err(why) => return unreadable(why),
    };
    match serde_json::from_str::<Value>(&text) {
        Ok(ruleset) => judge(&ruleset, !host.pod_links.is_empty()),
        Err(error) => unreadable(format!("nft -j list ruleset: {error}")),
    }
}

/// Judges a ruleset as `nft -j` prints it (libnftables-json(5)).
fn judge(ruleset: &Value, has_pods: bool) -> Vec<Finding> {
    let items = || ruleset["nftables"].as_array().into_iter().flatten();
    let mut findings: Vec<Finding> = items()
        .filter_map(|item| item.get("chain"))
        .filter(|chain| chain["hook"] == "forward" && chain["table"] != OUR_TABLE)
        .filter_map(|chain| judge_chain(chain, &rules_of(ruleset, chain)))
        .collect();
    let ours =
        items().filter_map(|item| item.get("table")).any(|t| t["name"] == OUR_TABLE && t["family"] == "inet");
    if has_pods && !ours {
        findings.push(missing_table());
    }
    findings
}

fn missing_table() -> Finding {
    Finding::wrong(
        CHECK,
        format!("the nftables table inet {OUR_TABLE} is missing"),
        "pods can send from addresses that are not theirs, and what needs masquerading is not; a `nft flush ruleset` removes it",
        "start any pod: its ADD writes the table again".to_owned(),
    )
}

fn rules_of<'a>(ruleset: &'a Value, chain: &Value) -> Vec<&'a Value> {
    let rules = ruleset["nftables"].as_array().into_iter().flatten().filter_map(|item| item.get("rule"));
    let same =
        |r: &&Value| ["family", "table"].iter().all(|k| r[*k] == chain[*k]) && r["chain"] == chain["name"];
    rules.filter(same).collect()
}

/// A chain that drops what no rule of its own accepts. A rule that names pod links is taken as care
/// for pods: what it says exactly is its author's business.
fn judge_chain(chain: &Value, rules: &[&Value]) -> Option<Finding> {
    let cares = rules.iter().any(|rule| rule.to_string().contains("\"cali"));
    let drops = chain["policy"] == "drop" || rules.last().is_some_and(|rule| drops_everything(rule));
    if cares || !drops {
        return None;
    }
    let text = |key: &str| chain[key].as_str().unwrap_or("?").to_owned();
    let (family, table, name) = (text("family"), text("table"), text("name"));
    let cure = match table.as_str() {
        "firewalld" => {
            "firewall-cmd --permanent --zone=trusted --add-interface=cali+ && firewall-cmd --reload"
                .to_owned()
        }
        _ => format!(
            "nft insert rule {family} {table} {name} iifname \"cali*\" accept\n\
             nft insert rule {family} {table} {name} oifname \"cali*\" accept"
        ),
    };
    Some(Finding::wrong(
        CHECK,
        format!("chain {name} of nftables table {family} {table} drops forwarded packets"),
        "a packet must pass every forward chain of the host: this one drops those of pods",
        cure,
    ))
}

/// A verdict without any match before it: nothing, a counter or a log line.
fn drops_everything(rule: &Value) -> bool {
    let Some(statements) = rule["expr"].as_array() else { return false };
    let idle = |s: &Value| ["counter", "log"].iter().any(|k| s.get(*k).is_some());
    let verdict = |s: &Value| ["drop", "reject"].iter().any(|k| s.get(*k).is_some());
    statements.last().is_some_and(verdict) && statements[..statements.len() - 1].iter().all(idle)
}

/// Judges the output of `iptables-save` of the legacy kind.
fn legacy(text: &str, family: &str) -> Option<Finding> {
    let drops = text.lines().any(|line| line.starts_with(":FORWARD DROP"));
    let cares = text.lines().any(|line| line.starts_with("-A FORWARD") && line.contains(" cali"));
    let tool = if family == "IPv6" { "ip6tables-legacy" } else { "iptables-legacy" };
    (drops && !cares).then(|| {
        Finding::wrong(
            CHECK,
            format!("the FORWARD policy of {tool} is DROP"),
            "a packet must pass every firewall of the host: this one drops those of pods",
            format!("{tool} -I FORWARD -i cali+ -j ACCEPT\n{tool} -I FORWARD -o cali+ -j ACCEPT"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chain(table: &str, policy: &str) -> Value {
        json!({"chain": {"family": "ip", "table": table, "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0, "policy": policy}})
    }

    fn rule(table: &str, expr: Value) -> Value {
        json!({"rule": {"family": "ip", "table": table, "chain": "FORWARD", "handle": 4, "expr": expr}})
    }

    fn whats(items: &[Value], has_pods: bool) -> Vec<String> {
        judge(&json!({"nftables": items}), has_pods).into_iter().map(|f| f.what).collect()
    }

    fn ours() -> Value {
        json!({"table": {"family": "inet", "name": "percale"}})
    }

    #[test]
    fn a_foreign_forward_chain_that_drops_is_wrong() {
        let wanted = ["chain FORWARD of nftables table ip filter drops forwarded packets"];
        assert_eq!(whats(&[chain("filter", "drop")], false), wanted);
        let reject = rule(
            "filter",
            json!([{"counter": {}}, {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]),
        );
        assert_eq!(whats(&[chain("filter", "accept"), reject], false), wanted);
    }

    #[test]
    fn chains_that_let_pods_pass_are_fine() {
        let accept = rule(
            "filter",
            json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "cali*"}}, {"accept": null}]),
        );
        assert!(whats(&[chain("filter", "drop"), accept], false).is_empty());
        let some = rule(
            "filter",
            json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth9"}}, {"drop": null}]),
        );
        assert!(whats(&[chain("filter", "accept"), some], false).is_empty());
        assert!(whats(&[chain("percale", "drop"), ours()], true).is_empty());
    }

    #[test]
    fn a_flushed_ruleset_beside_pods_is_wrong() {
        assert_eq!(whats(&[], true), ["the nftables table inet percale is missing"]);
        assert!(whats(&[ours()], true).is_empty() && whats(&[], false).is_empty());
    }

    #[test]
    fn the_legacy_policy_is_seen() {
        let found = legacy("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [1:2]\nCOMMIT\n", "IPv4").unwrap();
        assert!(found.cure.starts_with("iptables-legacy -I FORWARD -i cali+"));
        assert!(legacy(":FORWARD DROP [0:0]\n-A FORWARD -i cali+ -j ACCEPT\n", "IPv4").is_none());
        assert!(legacy(":FORWARD ACCEPT [0:0]\n", "IPv6").is_none());
    }

    #[test]
    fn garbage_is_no_finding_and_no_panic() {
        for value in
            [json!(null), json!({"nftables": 3}), json!({"nftables": [{"chain": 5}, {"rule": {"expr": 1}}]})]
        {
            assert!(judge(&value, false).is_empty());
        }
    }
}
