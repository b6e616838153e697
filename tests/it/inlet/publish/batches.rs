//! `?format=pubsub`: the messages of Pub/Sub's own REST method.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{ids, outcome};
use crate::support::{gateway::Gateway, http1::Answer};

const PATH: &str = "/publish/orders?format=pubsub";

fn send(gateway: &Gateway, body: &Value) -> Answer {
    let json = [("Content-Type", "application/json")];
    gateway.post(PATH, &json, body.to_string().as_bytes())
}

#[test]
fn ids_are_in_the_order_of_the_messages() {
    let gateway = Gateway::dev(&[]);
    let mut stream = gateway.events("?format=message");
    let message = |n: usize| {
        json!({
            "data": STANDARD.encode(n.to_string()), "attributes": { "n": n.to_string() },
            "orderingKey": "k", "publishTime": "2021-02-26T19:13:55.749Z",
        })
    };
    let messages: Vec<_> = (0..1_000).map(message).collect();
    let stored = ids(&send(&gateway, &json!({ "messages": messages })));
    assert_eq!(stored.len(), 1_000);
    for (n, id) in stored.iter().enumerate() {
        let seen: Value = serde_json::from_str(&stream.next().data).unwrap();
        assert_eq!((&seen["id"], &seen["data"]), (&json!(id), &json!(n)));
        assert_eq!(seen["attributes"]["n"], n.to_string());
        assert_eq!(seen["ordering_key"], "k");
    }
    let too_many: Vec<_> = (0..1_001).map(message).collect();
    let answer = send(&gateway, &json!({ "messages": too_many }));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("at most 1000"), "{}", answer.text());
}

#[test]
fn each_message_may_have_its_own_id() {
    let gateway = Gateway::dev(&[]);
    let batch = |ids: &[&str]| {
        let messages = ids.iter().map(|id| json!({ "data": "eA==", "messageId": id }));
        json!({ "messages": messages.collect::<Vec<_>>() })
    };
    let first = ids(&send(&gateway, &batch(&["1", "2"])));
    // A retry with more messages, and one id twice.
    let second = ids(&send(&gateway, &batch(&["2", "3", "3", "1"])));
    assert_eq!((&second[0], &second[3]), (&first[1], &first[0]));
    assert_eq!(second[1], second[2]);
    assert!(!first.contains(&second[1]));
    // The key of a request is that of its messages, each with its position.
    let retried = || {
        let headers = [("Idempotency-Key", "batch-7")];
        let body = json!({ "messages": [{ "data": "eA==" }, { "data": "eQ==" }] });
        ids(&gateway.post(PATH, &headers, body.to_string().as_bytes()))
    };
    let once = retried();
    assert_eq!(once.len(), 2);
    assert_eq!(retried(), once);
    assert_eq!(outcome(&gateway, "stored"), 5);
}

/// Nothing of a batch is stored if one message breaks a rule.
#[test]
fn a_batch_is_checked_before_anything_is_stored() {
    let gateway = Gateway::dev(&[]);
    let good = json!({ "data": "eA==" });
    let many: Value =
        (0..101).map(|n| (n.to_string(), json!(""))).collect::<serde_json::Map<_, _>>().into();
    for (bad, text) in [
        (json!({ "data": "a!b" }), "messages[1]: the data is not base64"),
        (json!({}), "messages[1]: the message is empty"),
        (json!({ "attributes": { "googx": "1" } }), "messages[1]: attribute \\\"googx\\\""),
        (json!({ "attributes": many }), "at most 100"),
        (json!({ "attributes": { "a": 1 } }), "string"),
        (json!({ "data": 1 }), "string"),
        (json!({ "data": "eA==", "orderingkey": "k" }), "unknown field"),
        (
            json!({ "data": "eA==", "orderingKey": "k".repeat(1_025) }),
            "messages[1]: the ordering key",
        ),
        (json!({ "data": "eA==", "messageId": "k".repeat(256) }), "messages[1]: the message id"),
        (json!({ "data": STANDARD.encode(vec![0; 10_000_001]) }), "messages[1]: the data has"),
        (json!([["eA=="]]), "object"),
    ] {
        let answer = send(&gateway, &json!({ "messages": [good, bad] }));
        assert_eq!(answer.status, 400, "{text}");
        assert!(answer.text().contains(text), "{text}: {}", answer.text());
    }
    for (body, text) in [
        ("", "EOF"),
        ("{}", "missing field"),
        ("[]", "an object"),
        ("[[{\"data\":\"eA==\"}]]", "an object"),
        (r#"{"messages":[]}"#, "at least one"),
        (r#"{"messages":{}}"#, "list"),
        (r#"{"messages":[{"attributes":{"a":"1","a":"2"}}]}"#, "twice"),
        (r#"{"messages":[{"data":"eA=="}],"topic":"x"}"#, "unknown field"),
    ] {
        let answer = gateway.post(PATH, &[], body.as_bytes());
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text().contains(text), "{body}: {}", answer.text());
    }
    for query in ["&key=k", "&event=e", "&attributes.a=b", "&format=pubsub"] {
        let body = json!({ "messages": [good] }).to_string();
        let answer = gateway.post(&format!("{PATH}{query}"), &[], body.as_bytes());
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
    let large = vec![b' '; 16 * 1024 * 1024 + 1];
    assert_eq!(gateway.post(PATH, &[], &large).status, 413);
    assert_eq!(outcome(&gateway, "stored"), 0);
}
