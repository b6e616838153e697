//! WebSockets of a real browser.

use std::fs;

use serde_json::json;

use crate::support::{browser::Browser, gateway::Gateway};

/// Returns the number of connections to a port of this machine.
fn connections(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let is_of_port = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|address| address.ends_with(&local))
            && fields.nth(1) == Some(ESTABLISHED)
    };
    table.lines().filter(is_of_port).count()
}

/// Over HTTP/1.1, Chromium opens a connection for each WebSocket.
#[test]
fn chromium_carries_websockets_on_its_http2_connection() {
    let gateway = Gateway::dev_over_tls(&[]);
    let port = gateway.address.port();
    let browser = Browser::start();
    browser.open(&format!("https://localhost:{port}/readyz"));
    let protocol = "return performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.run(protocol), "h2");
    let before = connections(port);
    browser.run(
        "window.records = [];
         window.sockets = [1, 2, 3].map(() => new WebSocket(`wss://${location.host}/ws?topic=orders`));
         for (const socket of sockets) {
           socket.onmessage = ({ data }) => records.push(JSON.parse(data));
           socket.onclose = ({ code }) => records.push({ type: 'close', code });
         }",
    );
    let opened = "return records.filter(({ type }) => type === 'open').length === 3";
    browser.until("three are open", opened);
    assert_eq!(connections(port), before, "no further connection");
    gateway.publish("orders", "{\"n\":1}");
    let data = browser.until(
        "each has the event",
        "const events = records.filter(({ type }) => type === 'event');
         return events.length === 3 && events.map(({ data }) => data);",
    );
    assert_eq!(data, json!([{ "n": 1 }, { "n": 1 }, { "n": 1 }]));
    browser.run("sockets.forEach((socket) => socket.close(4000, 'done'))");
    let codes = browser.until(
        "each is closed with the page's code",
        "const closed = records.filter(({ type }) => type === 'close');
         return closed.length === 3 && closed.map(({ code }) => code);",
    );
    assert_eq!(codes, json!([4000, 4000, 4000]));
    gateway.until_metric("stream_events_streams", 0.0);
}
