//! Pure: how long a service account's token lives.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Seconds since 1970 at which a JSON web token (RFC 7519) was issued and expires. `None` where it
/// does not say: it then never expires, as those of old service account secrets.
pub fn lifetime(token: &str) -> Option<(u64, u64)> {
    let claims = token.trim().split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let expires = claims["exp"].as_u64()?;
    Some((claims["iat"].as_u64().unwrap_or(expires.saturating_sub(3600)), expires))
}

/// When another token is asked for: after half of the life of this one, so that the API server may
/// be away for as long as the other half.
pub fn renew_at(token: &str) -> Option<u64> {
    lifetime(token).map(|(issued, expires)| issued + expires.saturating_sub(issued) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn half_of_its_life() {
        assert_eq!(renew_at(&token(r#"{"iat":1000,"exp":4600}"#)), Some(2800));
        assert_eq!(renew_at(&token(r#"{"sub":"never expires"}"#)), None);
        for bad in ["", "a.b", "a.%%.c", &token("[]"), &token(r#"{"exp":"soon"}"#)] {
            assert_eq!(renew_at(bad), None, "{bad}");
        }
        assert_eq!(renew_at(&token(r#"{"iat":9,"exp":3}"#)), Some(9));
    }
}
