//! Pure: whether the scheduler could put a pod on a node, by node selector and required node affinity
//! (k8s.io/api core/v1: NodeSelectorTerm). Nothing else of a pod keeps a DaemonSet off a node for good.

use serde_json::{Map, Value};

/// What cannot be understood counts as no hindrance.
pub fn may_run(pod: &Value, labels: &Map<String, Value>, node: &str) -> bool {
    let selector = pod["nodeSelector"].as_object().into_iter().flatten();
    if selector.into_iter().any(|(key, value)| labels.get(key) != Some(value)) {
        return false;
    }
    let required = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match required["nodeSelectorTerms"].as_array() {
        Some(terms) => terms.iter().any(|term| fits(term, labels, node)),
        None => true,
    }
}

/// A term without any requirement fits no node.
fn fits(term: &Value, labels: &Map<String, Value>, node: &str) -> bool {
    let list = |key: &str| term[key].as_array().cloned().unwrap_or_default();
    let (expressions, fields) = (list("matchExpressions"), list("matchFields"));
    let label = |rule: &Value| labels.get(rule["key"].as_str().unwrap_or_default()).and_then(Value::as_str);
    let by_label = expressions.iter().all(|rule| holds(rule, label(rule)));
    let by_field = fields.iter().all(|rule| rule["key"] != "metadata.name" || holds(rule, Some(node)));
    !(expressions.is_empty() && fields.is_empty()) && by_label && by_field
}

fn holds(rule: &Value, value: Option<&str>) -> bool {
    let values: Vec<&str> =
        rule["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |wanted: fn(&i64, &i64) -> bool| {
        let limit = values.first().copied().and_then(number);
        value.and_then(number).zip(limit).is_some_and(|(value, limit)| wanted(&value, &limit))
    };
    match rule["operator"].as_str().unwrap_or_default() {
        "In" => value.is_some_and(|value| values.contains(&value)),
        "NotIn" => value.is_none_or(|value| !values.contains(&value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn on(rule: Value) -> bool {
        let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}});
        let pod = json!({"nodeSelector": {"os": "linux"}, "affinity": {"nodeAffinity": affinity}});
        let labels = json!({"os": "linux", "taken-over": "all", "rack": "7"});
        may_run(&pod, labels.as_object().unwrap(), "node1")
    }

    #[test]
    fn every_operator() {
        let cases = [
            ("taken-over", "NotIn", json!(["all"]), false),
            ("taken-over", "NotIn", json!(["plugin"]), true),
            ("other", "NotIn", json!(["all"]), true),
            ("taken-over", "DoesNotExist", json!(null), false),
            ("taken-over", "Exists", json!(null), true),
            ("taken-over", "In", json!(["all", "x"]), true),
            ("rack", "Gt", json!(["6"]), true),
            ("rack", "Lt", json!(["7"]), false),
            ("os", "Gt", json!(["1"]), false),
        ];
        for (key, operator, values, wanted) in cases {
            let rule = json!({"key": key, "operator": operator, "values": values});
            assert_eq!(on(rule), wanted, "{key} {operator} {values}");
        }
    }

    #[test]
    fn without_affinity_the_selector_decides() {
        let labels = json!({"os": "linux"});
        let labels = labels.as_object().unwrap();
        assert!(may_run(&json!({}), labels, "n"));
        assert!(!may_run(&json!({"nodeSelector": {"os": "windows"}}), labels, "n"));
        let required = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        assert!(!may_run(&required(json!([{}])), labels, "n"), "an empty term fits nothing");
        let named = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}]);
        assert!(!may_run(&required(named), labels, "n"));
    }
}
