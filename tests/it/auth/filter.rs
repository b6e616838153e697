//! The claim `filter` of readers' tokens: joined with the reader's own filter by `AND`, on streams,
//! tickets and renewals.

use serde_json::{Value, json};

use crate::{
    auth::reader::{bearer, claims, gateway, now, open},
    outlet::tickets::{name_of, renew, ticket},
    stream::filter::{publish, query},
    support::{
        http1::EventSource,
        jwks::{KeyServer, sign},
        redis::RedisServer,
    },
};

const TENANT: &str = "attributes.tenant = \"7\"";

fn token(filter: &str) -> String {
    let mut claims = claims(&["orders"]);
    claims["filter"] = json!(filter);
    claims["exp"] = json!(now() + 600);
    sign(&claims)
}

#[test]
fn the_claim_narrows_what_the_reader_asks_for() {
    let keys = KeyServer::start();
    let redis = RedisServer::start();
    let url = redis.url();
    let shared = [("backplane", &*url)];
    let gateways = [gateway(&keys, &[]), gateway(&keys, &shared), gateway(&keys, &shared)];
    let token = token(TENANT);
    let urgent = query("attributes:urgent");
    let widening = query("attributes.tenant = \"8\" OR attributes:end");
    for (at, other) in [(0, 0), (1, 2)] {
        let (at, other) = (&gateways[at], &gateways[other]);
        let by_ticket = |query: &str| {
            let name = ticket(at, &token);
            other.events(&format!("{query}&ticket={name}"))
        };
        let mut streams: Vec<(EventSource, &[&str])> = vec![
            (open(at, "", &token), &["7", "7 urgent", "7 end"]),
            (open(at, &urgent, &token), &["7 urgent", "7 end"]),
            (open(at, &widening, &token), &["7 end"]),
            (by_ticket("?topic=orders"), &["7", "7 urgent", "7 end"]),
            (by_ticket(&urgent), &["7 urgent", "7 end"]),
        ];
        for (data, attributes) in [
            ("8", json!({ "tenant": "8" })),
            ("7", json!({ "tenant": "7" })),
            ("none urgent", json!({ "urgent": "" })),
            ("7 urgent", json!({ "tenant": "7", "urgent": "" })),
            ("8 end", json!({ "tenant": "8", "urgent": "", "end": "" })),
            ("7 end", json!({ "tenant": "7", "urgent": "", "end": "" })),
        ] {
            publish(at, data, &attributes);
        }
        for (source, expected) in &mut streams {
            assert_eq!(source.take(expected.len()), *expected);
        }
    }
}

#[test]
fn a_claim_that_is_no_filter_is_refused_with_its_position() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[]);
    let bearer = bearer(&token("attributes.tenant = 7"));
    for (method, path) in [("GET", "/events"), ("POST", "/ticket")] {
        let headers = [("Authorization", &*bearer)];
        let answer = match method {
            "GET" => gateway.get(path, &headers),
            _ => gateway.post(path, &headers, b""),
        };
        assert_eq!(answer.status, 403, "{path}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("its claim filter") && detail.contains("character 21"), "{detail}");
    }
}

/// A renewal never widens a stream: its filter stays, and the new token must not ask for another.
#[test]
fn a_stream_is_renewed_by_a_token_whose_filter_it_has() {
    let keys = KeyServer::start();
    let gateway = gateway(&keys, &[]);
    let mut source = open(&gateway, &query("attributes:urgent"), &token(TENANT));
    let name = name_of(&source);
    let without: Value = claims(&["orders"]);
    for (what, token, expected) in [
        ("the same filter", token(TENANT), 202),
        ("the same filter in other words", token("NOT attributes.\"tenant\" != \"\\x37\""), 202),
        ("the filter that the reader asked for", token("attributes:urgent"), 202),
        ("both", token(&format!("attributes:urgent AND {TENANT}")), 202),
        ("another filter", token("attributes.tenant = \"8\""), 403),
        ("a narrower filter", token(&format!("{TENANT} AND attributes:paid")), 403),
        ("no filter", sign(&without), 202),
    ] {
        assert_eq!(renew(&gateway, &name, &token), expected, "{what}");
    }
    publish(&gateway, "hidden", &json!({ "tenant": "8", "urgent": "" }));
    publish(&gateway, "shown", &json!({ "tenant": "7", "urgent": "" }));
    assert_eq!(source.next().data, "shown");
    let plain = open(&gateway, "", &sign(&without));
    assert_eq!(renew(&gateway, &name_of(&plain), &token(TENANT)), 403, "it has no filter");
}
