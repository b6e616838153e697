//! Which pages a browser lets read.

use serde_json::json;

use crate::{
    auth::reader::{self, bearer, now},
    support::{
        gateway::Gateway,
        http1,
        jwks::{KeyServer, sign},
    },
};

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
        let kind = if allowed { "text/event-stream" } else { "application/problem+json" };
        assert_eq!(header("content-type"), Some(kind), "{origin}");
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
            http1::request(
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

/// An image, a frame or a fetch without CORS has no `Origin`, but the reader's cookie.
#[test]
fn pages_of_other_sites_use_no_cookie() {
    let keys = KeyServer::start();
    let listed = ("cors-origin", "https://app.example.com");
    let cookie = ("read-cookie", "session");
    let (any, some) =
        (reader::gateway(&keys, &[cookie]), reader::gateway(&keys, &[cookie, listed]));
    let token = sign(&json!({ "sub": "alice", "exp": now() + 300, "topics": ["*"] }));
    let (in_cookie, in_header) = (format!("session={token}"), bearer(&token));
    let by_cookie = ("Cookie", &*in_cookie);
    let by_header = ("Authorization", &*in_header);
    let app = Some("https://app.example.com");
    let own = Some("https://localhost");
    let ok = [200, 200, 404];
    let refused = [403; 3];
    for (gateway, credential, site, origin, expected) in [
        // Older browsers, and other clients.
        (&any, by_cookie, None, None, ok),
        (&some, by_cookie, None, None, ok),
        (&some, by_cookie, Some("none"), None, ok),
        (&some, by_cookie, Some("same-origin"), None, ok),
        (&some, by_cookie, Some("cross-site"), None, refused),
        (&some, by_cookie, Some("same-site"), None, refused),
        (&some, by_cookie, Some("of-tomorrow"), None, refused),
        (&some, by_cookie, Some(""), None, refused),
        (&some, by_cookie, Some("cross-site"), app, ok),
        (&some, by_cookie, Some("same-site"), app, ok),
        // A proxy in front may have another name than the one that the page knows.
        (&some, by_cookie, Some("same-site"), own, ok),
        // One that is not listed is refused whatever the site.
        (&some, by_cookie, Some("cross-site"), Some("https://evil.example"), [400; 3]),
        // Without a list no page may use cookies but the gateway's own.
        (&any, by_cookie, Some("cross-site"), None, refused),
        (&any, by_cookie, Some("same-site"), None, refused),
        (&any, by_cookie, Some("cross-site"), Some("https://evil.example"), refused),
        (&any, by_cookie, Some("cross-site"), Some("null"), refused),
        (&any, by_cookie, Some("same-site"), own, ok),
        // Whoever has the token itself may use it anywhere.
        (&any, by_header, Some("cross-site"), None, ok),
        (&some, by_header, Some("cross-site"), None, ok),
        (&any, by_header, Some("cross-site"), Some("https://evil.example"), ok),
    ] {
        let site = site.map(|site| ("Sec-Fetch-Site", site));
        let origin = origin.map(|origin| ("Origin", origin));
        let headers: Vec<_> = [Some(credential), site, origin].into_iter().flatten().collect();
        let statuses = [
            gateway.get_head("/events", &headers).0,
            gateway.post("/ticket", &headers, b"").status,
            gateway.post("/renew?stream=0123456789abcdef", &headers, b"").status,
        ];
        assert_eq!(statuses, expected, "{site:?} {origin:?} {}", credential.0);
    }
    let headers = [by_cookie, ("Sec-Fetch-Site", "cross-site")];
    let text = some.get("/events", &headers).text();
    assert!(text.contains("Sec-Fetch-Site") && text.contains("--cors-origin"), "{text}");
    // Who brings no cookie is told what is missing.
    assert_eq!(some.get("/events", &headers[1..]).status, 401);
    // A ticket is no cookie.
    let ticket = some.post("/ticket", &[by_header], b"").json()["ticket"].clone();
    let path = format!("/events?ticket={}", ticket.as_str().unwrap());
    assert_eq!(some.get_head(&path, &headers).0, 200);
}
