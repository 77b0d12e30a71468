//! Names of workload endpoints (reference 2.6): segments with `-` between them, in which `-` is doubled.

use super::{KUBERNETES, PLAIN};
use std::fmt::Write as _;

/// What an endpoint's name is made of. Which of the middle ones counts depends on the orchestrator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameOf<'a> {
    pub node: &'a str,
    pub orchestrator: &'a str,
    pub pod: &'a str,
    pub workload: &'a str,
    pub container_id: &'a str,
    pub endpoint: &'a str,
}

/// The endpoint's name. `None`: a part is missing, or begins or ends with `-`, which would make the name
/// ambiguous.
pub fn endpoint_name(of: &NameOf<'_>) -> Option<String> {
    let middle = match of.orchestrator {
        KUBERNETES => of.pod,
        PLAIN => of.container_id,
        "libnetwork" => "libnetwork",
        _ => of.workload,
    };
    let parts = [of.node, of.orchestrator, middle, of.endpoint].map(segment);
    let parts: Option<Vec<String>> = parts.into_iter().collect();
    Some(parts?.join("-"))
}

fn segment(text: &str) -> Option<String> {
    let ambiguous = text.is_empty() || text.starts_with('-') || text.ends_with('-');
    (!ambiguous).then(|| text.replace('-', "--"))
}

/// The four segments of an endpoint's name: node, orchestrator, pod or container, interface.
pub fn parse_name(name: &str) -> Option<[String; 4]> {
    let mut parts = vec![String::new()];
    let mut rest = name;
    while let Some(at) = rest.find('-') {
        let part = parts.last_mut()?;
        part.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix('-') {
            Some(after) => {
                part.push('-');
                rest = after;
            }
            None => parts.push(String::new()),
        }
    }
    parts.last_mut()?.push_str(rest);
    let parts: [String; 4] = parts.try_into().ok()?;
    let made: Option<Vec<String>> = parts.iter().map(|part| segment(part)).collect();
    (made?.join("-") == name).then_some(parts)
}

/// The file by which Calico's agent says that an endpoint's policy is in place (Calico 3.28): orchestrator,
/// workload and endpoint, each escaped as a segment of a URL's path (RFC 3986), with spaces between them.
pub fn status_file_name(orchestrator: &str, workload: &str, endpoint: &str) -> String {
    [orchestrator, workload, endpoint].map(escape).join(" ")
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod<'a>(node: &'a str, pod: &'a str) -> NameOf<'a> {
        NameOf { node, orchestrator: KUBERNETES, pod, endpoint: "eth0", ..NameOf::default() }
    }

    #[test]
    fn names_are_calicos() {
        assert_eq!(endpoint_name(&pod("node1", "web")).unwrap(), "node1-k8s-web-eth0");
        assert_eq!(endpoint_name(&pod("node-1", "web-0")).unwrap(), "node--1-k8s-web--0-eth0");
        let plain = NameOf {
            node: "n",
            orchestrator: PLAIN,
            container_id: "a-b",
            endpoint: "eth0",
            ..NameOf::default()
        };
        assert_eq!(endpoint_name(&plain).unwrap(), "n-cni-a--b-eth0");
        let docker = NameOf { node: "n", orchestrator: "libnetwork", endpoint: "ep", ..NameOf::default() };
        assert_eq!(endpoint_name(&docker).unwrap(), "n-libnetwork-libnetwork-ep");
        let other = NameOf {
            node: "n",
            orchestrator: "openstack",
            workload: "vm",
            endpoint: "tap",
            ..NameOf::default()
        };
        assert_eq!(endpoint_name(&other).unwrap(), "n-openstack-vm-tap");
    }

    #[test]
    fn ambiguous_parts_make_no_name() {
        for of in [pod("", "web"), pod("-n", "web"), pod("n", "web-"), pod("n", "")] {
            assert_eq!(endpoint_name(&of), None, "{of:?}");
        }
    }

    #[test]
    fn names_parse_back_and_only_they() {
        for (node, name) in [("n", "web"), ("node-1", "web-0"), ("a--b", "c--d-e"), ("a.b", "c.d")] {
            let made = endpoint_name(&pod(node, name)).unwrap();
            assert_eq!(parse_name(&made).unwrap(), [node, KUBERNETES, name, "eth0"], "{made}");
        }
        for bad in ["", "-", "a-b-c", "a-b-c-d-e", "a-k8s--c-d", "a-k8s-c-", "----"] {
            assert_eq!(parse_name(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn status_files_are_named_as_calicos_agent_does() {
        assert_eq!(status_file_name("k8s", "default/testpod1", "eth0"), "k8s default%2Ftestpod1 eth0");
        assert_eq!(status_file_name("k8/s", "a b", "eth/0"), "k8%2Fs a%20b eth%2F0");
    }
}
