//! Origins of web pages, for `--cors-origin`.

use std::str::FromStr;

/// Origin, or all subdomains of a domain
/// ([RFC 6454](https://www.rfc-editor.org/rfc/rfc6454)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Single origin, as in `https://app.example.com`. It has a port if that is not the default.
    Exact(String),
    /// Subdomains of a domain, as in `https://*.example.com`: the text before the star and after it.
    Subdomains(String, String),
}

/// Text that is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an origin. Expected http or https, a host in lower case and, if needed, a port, \
     as in https://app.example.com or https://*.example.com, without a path"
)]
pub struct ParseOriginError(String);

impl Origin {
    /// Returns true if `origin`, the value of an `Origin` header, is covered. The comparison is
    /// exact, because browsers write origins in lower case.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => origin == exact,
            Self::Subdomains(before, after) => {
                let labels = origin.strip_prefix(&**before).and_then(|o| o.strip_suffix(&**after));
                // No character may end the host: `https://evil.example/.example.com` is refused.
                let in_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
                labels.is_some_and(|l| !l.is_empty() && l.bytes().all(in_label))
            }
        }
    }
}

impl FromStr for Origin {
    type Err = ParseOriginError;

    fn from_str(text: &str) -> Result<Self, ParseOriginError> {
        let bad = || ParseOriginError(text.chars().take(64).collect());
        let (scheme, host) = text.split_once("://").ok_or_else(bad)?;
        let (star, domain) = match host.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, host),
        };
        let plain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:[]".contains(&byte)
        };
        let known = ["http", "https"].contains(&scheme);
        if !known || domain.is_empty() || !domain.bytes().all(plain) || domain.starts_with('.') {
            return Err(bad());
        }
        // The subdomains of `com` have many owners.
        if star && !domain.contains('.') {
            return Err(bad());
        }
        Ok(if star {
            Self::Subdomains(format!("{scheme}://"), format!(".{domain}"))
        } else {
            Self::Exact(text.to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_origin_matches() {
        let exact: Origin = "https://app.example.com".parse().unwrap();
        assert!(exact.matches("https://app.example.com"));
        for other in
            ["http://app.example.com", "https://app.example.com:8443", "https://x.app.example.com"]
        {
            assert!(!exact.matches(other), "{other}");
        }
        let below: Origin = "https://*.example.com".parse().unwrap();
        assert!(below.matches("https://a.example.com") && below.matches("https://a.b.example.com"));
        for other in [
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "https://evil.com/.example.com",
            "https://evil.com:80.example.com",
            "https://evil.com#.example.com",
            "https://user@x.example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "null",
        ] {
            assert!(!below.matches(other), "{other}");
        }
    }

    #[test]
    fn text_that_is_not_an_origin_is_refused() {
        for text in [
            "example.com",
            "https://",
            "https://a.example.com/",
            "https://A.example.com",
            "https://*",
            "https://*.com",
            "https://a.*.example.com",
            "ftp://a.example.com",
            "*",
            "null",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
