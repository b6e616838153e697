//! Newline-delimited JSON: `Accept: application/x-ndjson`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, message},
    process::installed,
    reader::{CASES, Case, Signal},
};

const NDJSON: Case = CASES[1];

fn data(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_head_and_the_first_lines() {
    let gateway = Gateway::dev(&[("keep-alive", "1 s")]);
    let mut reader = NDJSON.open(&gateway, "?topic=orders");
    for (name, value) in [
        ("content-type", "application/x-ndjson"),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("incremental", "?1"),
    ] {
        assert_eq!(reader.header(name), Some(value));
    }
    let opened = reader.opened.clone().unwrap();
    let open = data(&opened.data);
    assert_eq!(opened.id, open["id"].as_str().unwrap());
    assert_eq!((&open["topics"], &open["resumed"]), (&json!(["orders"]), &json!(false)));
    assert!((2_000..4_000).contains(&open["retry"].as_u64().unwrap()), "{open}");
    gateway.publish("orders", "{\"id\":\n1}");
    assert_eq!(reader.next().data, "{\"id\":1}");
    assert_eq!(reader.next_signal(), Some(Signal::KeepAlive));
    gateway.publish("parcels", "x");
    let Some(Signal::Checkpoint(id)) = reader.next_signal() else { panic!("no checkpoint") };
    assert_eq!(NDJSON.resume(&gateway, "", &id).opened.unwrap().id, id);
}

#[test]
fn a_stream_resumes_after_the_id_of_the_header_or_of_the_query() {
    let gateway = Gateway::dev(&[("ring-events", "2")]);
    let mut source = gateway.events("");
    let mut ids = Vec::new();
    for data in ["1", "2", "3"] {
        gateway.publish("orders", data);
        ids.push(source.next().id);
    }
    assert_eq!(NDJSON.resume(&gateway, "", &ids[1]).take(1), ["3"]);
    let mut of_query = NDJSON.open(&gateway, &format!("?last_event_id={}", ids[0]));
    assert_eq!(data(&of_query.opened.clone().unwrap().data)["resumed"], true);
    assert_eq!(of_query.take(2), ["2", "3"]);
    // An id of another format continues here, and a gap has no id.
    let mut late = NDJSON.resume(&gateway, "", "1-1");
    let gap = late.next_raw().unwrap();
    assert_eq!((gap.event.as_str(), gap.id.as_str()), ("stream-gap", "1-1"));
    assert_eq!(data(&gap.data)["reason"], "restart");
    assert_eq!(late.take(2), ["2", "3"]);
}

#[test]
fn a_stream_ends_with_a_reason_and_a_retry_time() {
    let gateway = Gateway::dev(&[("stream-age-max", "1 s")]);
    let mut reader = NDJSON.open(&gateway, "");
    let end = reader.next_raw().unwrap();
    assert_eq!(end.event, "stream-end");
    let end = data(&end.data);
    assert_eq!(end["reason"], "max-age");
    assert!((200..1_500).contains(&end["retry"].as_u64().unwrap()), "{end}");
    assert_eq!(reader.next_signal(), None);
}

#[test]
fn accept_chooses_by_quality() {
    let gateway = Gateway::dev(&[]);
    let (sse, ndjson, json) = ("text/event-stream", "application/x-ndjson", "application/json");
    for (accept, media_type) in [
        ("application/x-ndjson", ndjson),
        ("application/x-ndjson, text/event-stream", ndjson),
        ("text/event-stream, application/x-ndjson", sse),
        ("text/event-stream;q=0.5, application/x-ndjson;q=0.6", ndjson),
        ("application/x-ndjson;q=0, text/event-stream", sse),
        ("application/x-ndjson, */*", ndjson),
        ("*/*", sse),
        ("text/*", sse),
        ("application/*", json),
        ("application/*, text/*;q=0.9", json),
        ("application/*;q=0.9, text/*", sse),
        ("application/json, text/plain, */*", json),
        ("application/json;q=0.5, */*", sse),
        ("application/json;q=0.5, application/*", ndjson),
        ("text/event-stream;q=0, */*;q=0.1", json),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", sse),
    ] {
        let (status, headers) = gateway.get_head("/events", &[("Accept", accept)]);
        assert_eq!(status, 200, "{accept}");
        let found = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        assert_eq!(found.unwrap().1, media_type, "{accept}");
    }
    for accept in
        ["application/x-ndjson;q=0", "application/xml", "*/*;q=0", "text/event-stream;q=0, text/*"]
    {
        assert_eq!(gateway.get("/events", &[("Accept", accept)]).status, 406, "{accept}");
    }
}

#[test]
fn refusals_are_answers_with_a_status() {
    let gateway = Gateway::dev(&[("subscribers-max", "1")]);
    let accept = [("Accept", "application/x-ndjson")];
    let answer = gateway.get("/events?format=data", &accept);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("message or cloudevents"), "{}", answer.text());
    let first = NDJSON.open(&gateway, "");
    let answer = gateway.get("/events", &accept);
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    drop(first);
}

#[test]
fn cloud_events_have_the_id_to_resume_after() {
    let gateway = Gateway::dev(&[]);
    let mut lines = NDJSON.connect(&gateway, "?format=cloudevents", &[]);
    assert_eq!(lines.next_raw().unwrap().event, "stream-open");
    let mut source = gateway.events("?format=cloudevents");
    let mut structured = message(r#"{"specversion":"1.0","id":"a","source":"/s","type":"t"}"#, "1");
    structured["attributes"] = json!({ "content-type": "application/cloudevents+json" });
    gateway.push("orders", &structured);
    let event = source.next();
    let expected = json!({
        "specversion": "1.0", "id": "a", "source": "/s", "type": "t", "lasteventid": event.id,
    });
    assert_eq!(data(&event.data), expected);
    gateway.publish("orders", "2");
    assert_eq!(NDJSON.resume(&gateway, "", &event.id).take(1), ["2"]);
}

/// Line by line, as events come.
#[test]
fn curl_and_jq_read_a_stream() {
    if !installed("curl") || !installed("jq") {
        eprintln!("curl or jq is not installed: this test is skipped");
        return;
    }
    let gateway = Gateway::dev(&[]);
    let url = format!("http://{}/events", gateway.address);
    let accept = "Accept: application/x-ndjson";
    let mut curl = Command::new("curl")
        .args(["-sN", "-H", accept, &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut jq = Command::new("jq")
        .args(["--unbuffered", "-c", "select(.data) | .data.id"])
        .stdin(curl.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(jq.stdout.take().unwrap()).lines();
    gateway.until_metric("stream_events_streams", 1.0);
    for id in 1..=3 {
        gateway.publish("orders", format!("{{\"id\":{id}}}"));
        assert_eq!(lines.next().unwrap().unwrap(), id.to_string());
    }
    curl.kill().unwrap();
    curl.wait().unwrap();
    assert!(jq.wait().unwrap().success());
}
