//! Lines of JSON and polls through Debian's nginx with the configurations of `deploy/nginx`.

use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::proxies::Chain;
use crate::support::{block_on, gateway::metric, ndjson::NdjsonParser, reader::Signal};

/// Each line is read before the next event is pushed.
#[test]
fn lines_of_json_pass_the_proxies_at_once() {
    let chain = Chain::start(&[], &[], &[]);
    block_on(async {
        let accept = [("accept", "application/x-ndjson")];
        let answer =
            chain.client.send(Method::GET, "/events", &accept, Bytes::new()).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        let (mut body, mut lines) = (answer.into_body(), NdjsonParser::default());
        let mut next = async || loop {
            let bytes = body.data().await.expect("the stream goes on").unwrap();
            body.flow_control().release_capacity(bytes.len()).unwrap();
            let mut signals = lines.feed(&bytes);
            signals.retain(|signal| *signal != Signal::KeepAlive);
            if !signals.is_empty() {
                return signals;
            }
        };
        let opened = next().await;
        assert!(matches!(&opened[..], [Signal::Event(open)] if open.event == "stream-open"));
        for n in 0..10 {
            let text = format!("line {n} {}", "x".repeat(n * 1000));
            assert_eq!(chain.client.push(&text, &text).await.unwrap(), 204);
            let came = next().await;
            assert!(matches!(&came[..], [Signal::Event(line)] if line.data == text), "{came:?}");
        }
    });
}

/// A poll waits until an event is pushed: `wait` is longer than this test may take. `If-None-Match` and
/// 304 pass the proxies.
#[test]
fn polls_pass_the_proxies() {
    let chain = Chain::start(&[], &[], &[]);
    let poll = async |query: &str, tag: &str| {
        let (path, headers) = (format!("/events?mode=poll{query}"), [("if-none-match", tag)]);
        let answer = chain.client.send(Method::GET, &path, &headers, Bytes::new()).await.unwrap();
        let (head, mut body) = answer.into_parts();
        let mut page = Vec::new();
        while let Some(bytes) = body.data().await {
            page.extend_from_slice(&bytes.unwrap());
        }
        (head.status.as_u16(), head.headers["etag"].to_str().unwrap().to_owned(), page)
    };
    let page = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap();
    block_on(async {
        let (status, _, begin) = poll("&limit=0", "\"none\"").await;
        assert_eq!(status, 200);
        let query = format!("&last_event_id={}", page(&begin)["next"].as_str().unwrap());
        let (status, tag, _) = poll(&query, "\"none\"").await;
        assert_eq!(status, 200);
        assert_eq!(poll(&query, &tag).await, (304, tag.clone(), Vec::new()));
        chain.gateway.until_metric("stream_events_streams", 0.0);
        let waiting = format!("{query}&wait=60s");
        let push = async {
            while metric(chain.gateway.ops, "stream_events_streams") < 1.0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            chain.client.push("awaited", "1").await.unwrap()
        };
        let ((status, _, body), pushed) = tokio::join!(poll(&waiting, &tag), push);
        assert_eq!((status, pushed), (200, 204));
        assert_eq!(page(&body)["events"][0]["data"], "awaited");
        assert_eq!(poll(&query, &tag).await.0, 200, "the page is another one");
    });
}
