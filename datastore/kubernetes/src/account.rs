//! What the account may do, and for how long its token counts: for whoever looks for what is wrong.

use crate::cluster::Cluster;
use crate::error::Failure;
use crate::link::Call;
use http::Method;
use serde_json::{Value, json};

const CALICO: &str = "crd.projectcalico.org";
const ALL: &[&str] = &["get", "list", "create", "update", "delete"];

/// What the plugin needs: group, resource, subresource, verbs (the role `percale-cni` of the manifests).
const NEEDED: [(&str, &str, &str, &[&str]); 12] = [
    ("", "namespaces", "", &["get"]),
    ("", "nodes", "", &["get"]),
    ("", "pods", "", &["get"]),
    ("", "pods", "status", &["patch"]),
    (CALICO, "blockaffinities", "", ALL),
    (CALICO, "ipamblocks", "", ALL),
    (CALICO, "ipamhandles", "", ALL),
    (CALICO, "clusterinformations", "", &["get"]),
    (CALICO, "ipamconfigs", "", &["get"]),
    (CALICO, "ippools", "", &["get", "list"]),
    (CALICO, "ipreservations", "", &["get", "list"]),
    ("percale.io", "percalerecords", "", ALL),
];

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// What of that the account may not do, as `verb resource.group`.
pub(crate) async fn lacking(cluster: &Cluster) -> Result<Vec<String>, Failure> {
    let mut lacking = Vec::new();
    for (group, resource, subresource, verbs) in NEEDED {
        for verb in verbs {
            let asked =
                json!({"group": group, "resource": resource, "subresource": subresource, "verb": verb});
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": asked}});
            let answer = cluster.link.call(&Call::with(Method::POST, REVIEWS.to_owned(), &review)).await?;
            if !answer.is_success() {
                return Err(answer.failure());
            }
            if answer.json()?.pointer("/status/allowed") != Some(&Value::Bool(true)) {
                let parts = [resource, subresource].map(str::to_owned);
                let name =
                    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/");
                lacking.push(format!(
                    "{verb} {name}{}",
                    if group.is_empty() { String::new() } else { format!(".{group}") }
                ));
            }
        }
    }
    Ok(lacking)
}

/// When a token ends, in seconds since 1970: the claim `exp` of a JSON web token (RFC 7519, 4.1.4).
pub fn token_end(token: &str) -> Option<u64> {
    let claims: Value = serde_json::from_slice(&base64url(token.trim().split('.').nth(1)?)?).ok()?;
    claims.get("exp")?.as_u64()
}

/// RFC 4648, section 5, without padding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len()), 0_u32, 0);
    for byte in text.bytes() {
        bits = (bits << 6 | u32::from(digit(byte)?)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_end() {
        // {"alg":"RS256"}.{"exp":1893456000,"sub":"a"}
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE4OTM0NTYwMDAsInN1YiI6ImEifQ.c2ln";
        assert_eq!(token_end(token), Some(1_893_456_000));
        for none in ["", "a.b", "a.%%.c", "a.e30.c", "a..c", "opaque"] {
            assert_eq!(token_end(none), None, "{none}");
        }
    }
}
