//! Which pages a browser lets read.

use crate::support::gateway::Gateway;

fn serve(flags: &[(&'static str, &str)]) -> Gateway {
    Gateway::serve(&[&[("push-auth", "none"), ("read-auth", "anonymous")][..], flags].concat())
}

#[test]
fn listed_pages_may_read_with_credentials_and_no_others() {
    let gateway = serve(&[
        ("cors-origin", "https://app.example.com"),
        ("cors-origin", "https://*.example.org"),
    ]);
    for (origin, allowed) in [
        ("https://app.example.com", true),
        ("https://a.b.example.org", true),
        ("https://example.org", false),
        ("https://evil.com", false),
        ("https://app.example.com.evil.com", false),
        ("null", false),
        // The gateway's own name: a page beside it, behind the same proxy.
        ("https://localhost", true),
        ("http://localhost", false),
        ("https://localhost.evil.com", false),
    ] {
        let (status, headers) = gateway.get_head("/events", &[("Origin", origin)]);
        let header = |name: &str| {
            let found = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(header("access-control-allow-origin"), allowed.then_some(origin), "{origin}");
        // Without the other header a browser heeds none.
        if allowed {
            assert_eq!(header("access-control-allow-credentials"), Some("true"), "{origin}");
        }
        // Its answer depends on who asks.
        assert!(status != 200 || header("vary").is_some_and(|vary| vary.contains("Origin")));
        // A page that may not read the answer opens no stream with its visitor's cookies.
        assert_eq!(status, if allowed { 200 } else { 400 }, "{origin}");
    }
}

#[test]
fn any_page_may_read_without_credentials_if_none_is_listed() {
    let gateway = serve(&[]);
    let (_, headers) = gateway.get_head("/events", &[("Origin", "https://any.example")]);
    let header = |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    assert_eq!(header("access-control-allow-origin").unwrap().1, "*");
    assert!(header("access-control-allow-credentials").is_none());
}

/// A fetch-based client sends a preflight for these, and for a ticket.
#[test]
fn preflights_are_answered() {
    let gateway = serve(&[("cors-origin", "https://app.example.com")]);
    for (path, method, header) in [
        ("/events", "GET", "last-event-id"),
        ("/events", "GET", "authorization"),
        ("/ticket", "POST", "authorization"),
        ("/renew?stream=x", "POST", "authorization"),
    ] {
        let ask = |origin: &str| {
            crate::support::http1::request(
                gateway.address,
                "OPTIONS",
                path,
                &[
                    ("Origin", origin),
                    ("Access-Control-Request-Method", method),
                    ("Access-Control-Request-Headers", header),
                ],
                b"",
            )
        };
        let answer = ask("https://app.example.com");
        assert_eq!(answer.status, 200, "{path} {header}");
        let allowed = answer.header("access-control-allow-headers").unwrap().to_lowercase();
        assert!(allowed.contains(header), "{allowed}");
        assert!(answer.header("access-control-allow-methods").unwrap().contains(method));
        assert!(ask("https://evil.com").header("access-control-allow-origin").is_none());
    }
}
