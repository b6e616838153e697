//! WebSockets that pages of others open with a reader's cookie, and a page in Chromium.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use serde_json::json;

use crate::{
    auth::reader,
    support::{
        browser::Browser,
        gateway::Gateway,
        http1,
        jwks::{KeyServer, sign},
        websocket::{HANDSHAKE, WebSocket},
    },
};

/// Code that stands for a stream that is open.
const OPEN: u16 = 0;

/// Returns the code of the close frame, or [`OPEN`] if the stream of the query opens.
fn outcome(gateway: &Gateway, query: &str, headers: &[(&str, &str)]) -> u16 {
    let mut socket = WebSocket::open_with(gateway, query, headers);
    if socket.record()["type"] == "open" { OPEN } else { socket.end().1.unwrap() }
}

/// A page of another site opens a WebSocket: the browser adds the reader's cookie, and lets the page
/// read. The `Origin` alone tells the gateway whose page it is.
#[test]
fn pages_of_others_use_no_cookie() {
    let keys = KeyServer::start();
    let (named, listed) = (("read-cookie", "session"), ("cors-origin", "https://app.example"));
    let any = reader::gateway(&keys, &[named]);
    let some = reader::gateway(&keys, &[named, listed]);
    let public = Gateway::serve(&[("push-auth", "none"), ("read-auth", "anonymous")]);
    let token = sign(&reader::claims(&["*"]));
    let (in_cookie, in_header) = (format!("session={token}"), reader::bearer(&token));
    let (cookie, header) = (("Cookie", &*in_cookie), ("Authorization", &*in_header));
    let (by_cookie, by_header) = (Some(cookie), Some(header));
    // A page that is not listed opens no WebSocket at all where origins are listed.
    for (origin, with_any, with_some) in [
        // Clients that are no browsers.
        (None, OPEN, OPEN),
        (Some("https://app.example"), 4403, OPEN),
        (Some("https://localhost"), OPEN, OPEN),
        (Some("https://evil.example"), 4403, 4403),
        (Some("null"), 4403, 4403),
        (Some(""), 4403, 4403),
        (Some("http://app.example"), 4403, 4403),
        (Some("https://app.example:444"), 4403, 4403),
        (Some("https://app.example.evil.example"), 4403, 4403),
        (Some("https://evil.example/https://app.example"), 4403, 4403),
        (Some("https://a.app.example"), 4403, 4403),
        // Anyone on the network can send such a page.
        (Some("http://localhost"), 4403, 4403),
        (Some("https://localhost.evil.example"), 4403, 4403),
        (Some("https://localhost:444"), 4403, 4403),
    ] {
        // Older browsers do not send Sec-Fetch-Site, and no browser sends it over plain HTTP.
        for site in [None, Some("cross-site"), Some("same-site")] {
            let (site, origin) =
                (site.map(|it| ("Sec-Fetch-Site", it)), origin.map(|it| ("Origin", it)));
            let with = |gateway, credential: Option<_>| {
                let headers: Vec<_> = [credential, site, origin].into_iter().flatten().collect();
                outcome(gateway, "?topic=orders", &headers)
            };
            // A request of another site without an Origin is none of a script.
            let is_odd = site.is_some() && origin.is_none();
            let expected = if is_odd { [4403; 2] } else { [with_any, with_some] };
            let got = [with(&any, by_cookie), with(&some, by_cookie)];
            assert_eq!(got, expected, "{site:?} {origin:?}");
            // Whoever has the token itself may use it on any page that may open a WebSocket.
            let by_token = [with(&any, by_header), with(&some, by_header)];
            assert_eq!(by_token, [OPEN, with_some], "{site:?} {origin:?}");
            let without = [with(&any, None), with(&some, None)];
            let refused = if with_some == OPEN { 4401 } else { 4403 };
            assert_eq!(without, [4401, refused], "{site:?} {origin:?}");
            assert_eq!(with(&public, by_cookie), OPEN, "{site:?} {origin:?}");
        }
    }
    let own = [cookie, ("Sec-Fetch-Site", "same-origin"), ("Origin", "http://localhost")];
    assert_eq!(outcome(&any, "?topic=orders", &own), OPEN);
    // A ticket is no cookie.
    let ticket = any.post("/ticket", &[header], b"").json()["ticket"].clone();
    let query = format!("?topic=orders&ticket={}", ticket.as_str().unwrap());
    assert_eq!(outcome(&any, &query, &[("Origin", "https://evil.example")]), OPEN);
}

/// `dev` checks no tokens, so pages of the web may not read from it.
#[test]
fn dev_is_open_to_pages_of_this_machine() {
    let dev = Gateway::dev(&[]);
    for (origin, expected) in [
        ("http://localhost:3000", OPEN),
        ("https://127.0.0.1", OPEN),
        ("http://[::1]:8080", OPEN),
        ("null", OPEN),
        ("https://evil.example", 4403),
        ("http://localhost.evil.example", 4403),
        ("http://127.0.0.1.evil.example", 4403),
        ("http://evil.example:3000/localhost", 4403),
        ("", 4403),
    ] {
        assert_eq!(outcome(&dev, "?topic=orders", &[("Origin", origin)]), expected, "{origin:?}");
    }
    // A page that has given its own name the address of this machine (DNS rebinding).
    let handshake = HANDSHAKE.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let text = format!(
        "GET /ws HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n{handshake}\r\n"
    );
    let answer = http1::exchange(dev.address, text.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
}

/// A page of another port is of the same site: Chromium sends the reader's cookie with its WebSockets.
#[test]
fn a_page_that_is_not_listed_opens_no_websocket_with_the_readers_cookie() {
    let (keys, page) = (KeyServer::start(), Gateway::dev(&[]));
    let origin = format!("http://{}", page.address);
    let cookie = ("read-cookie", "session");
    let closed = reader::gateway(&keys, &[cookie]);
    let listed = reader::gateway(&keys, &[cookie, ("cors-origin", &origin)]);
    let token = sign(&reader::claims(&["*"]));
    let browser = Browser::start();
    browser.open(&format!("{origin}/healthz"));
    browser.run(&format!(
        "document.cookie = 'session={token}'; window.seen = {{ closed: [], listed: [] }};
         for (const [name, address] of [['closed', '{}'], ['listed', '{}']]) {{
             const socket = new WebSocket(`ws://${{address}}/ws?topic=orders`);
             socket.onmessage = message => seen[name].push(JSON.parse(message.data).type);
             socket.onclose = event => seen[name].push(event.code);
         }}",
        closed.address, listed.address
    ));
    browser.until("the listed page's is open", "return seen.listed.includes('open')");
    let seen =
        browser.until("the other one is closed", "return seen.closed.length > 1 && seen.closed");
    assert_eq!(seen, json!(["end", 4403]));
    assert!(closed.metric("stream_events_streams_opened_total") < 1.0);
}

/// A proxy on layer 4 whose connections can be cut.
struct Relay {
    address: SocketAddr,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = Arc::new(Mutex::new(Vec::new()));
        let opened = Arc::clone(&sockets);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(gateway) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        io::copy(&mut from, &mut to).ok();
                        to.shutdown(Shutdown::Write).ok();
                    });
                }
                opened.lock().unwrap().extend([client, server]);
            }
        });
        Self { address, sockets }
    }

    fn cut(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            socket.shutdown(Shutdown::Both).ok();
        }
    }
}

/// The browser's own `WebSocket`: events, a resume after each cut, commands, pings, and the codes of
/// closes.
#[test]
fn a_page_reads_resumes_commands_and_closes() {
    let gateway = Gateway::dev(&[("keep-alive", "1 s")]);
    let relay = Relay::to(gateway.address);
    let browser = Browser::start();
    browser.open(&format!("http://{}/healthz", gateway.address));
    browser.run(&format!(
        "window.seen = []; window.closes = []; window.opens = []; window.answers = [];
         window.checkpoints = 0; window.last = '';
         window.connect = () => {{
             window.socket = new WebSocket(`ws://{}/ws?topic=orders&last_event_id=${{last}}`);
             socket.onmessage = message => {{
                 const record = JSON.parse(message.data);
                 if (record.id && !record.sub) last = record.id;
                 if (record.type === 'event') seen.push((record.sub ?? '') + record.data.n);
                 else if (record.type === 'checkpoint') checkpoints++;
                 else if (record.type === 'open') opens.push(record.resumed);
                 else answers.push(record.type);
             }};
             socket.onclose = event => {{
                 closes.push([event.code, event.wasClean]);
                 if (event.code === 1006) connect();
             }};
         }};
         connect();",
        relay.address
    ));
    browser.until("it is open", "return opens.length === 1");
    let publish = |topic: &str, n: usize| gateway.publish(topic, json!({ "n": n }).to_string());
    publish("orders", 0);
    browser.until("the event is there", "return seen.length === 1");
    for n in 1..4 {
        relay.cut();
        publish("orders", n);
        browser
            .until("it resumes", &format!("return opens.length === {n} + 1 && seen.length > {n}"));
    }
    browser.run("socket.send(JSON.stringify({ type: 'subscribe', sub: 'a', topics: ['chats'] }))");
    browser.until("it has two streams", "return opens.length === 5");
    publish("chats", 4);
    browser.until("the event is there", "return seen.length === 5");
    browser.run("socket.send(JSON.stringify({ type: 'unsubscribe', sub: 'a' }))");
    browser.until("it has one stream", "return answers.length === 2");
    // A checkpoint comes with a ping. A client that answers no pings is closed after three.
    browser.run("checkpoints = 0");
    for n in 0..5 {
        publish("chats", n);
        browser.until("a checkpoint is there", &format!("return checkpoints > {n}"));
    }
    publish("orders", 5);
    let seen = browser.until("all are there", "return seen.length === 6 && seen");
    assert_eq!(seen, json!(["0", "1", "2", "3", "a4", "5"]));
    assert_eq!(
        browser.run("return [opens, answers]"),
        json!([[false, true, true, true, false], ["ok", "ok"]])
    );
    browser.run(
        "socket.close(1000, 'bye');
         new WebSocket(`ws://${location.host}/ws?filter=no`).onclose =
             event => closes.push([event.code, event.wasClean]);",
    );
    browser.until("both are closed", "return closes.length === 5");
    let closes = browser.run("return closes.sort()");
    assert_eq!(
        closes,
        json!([[1000, true], [1006, false], [1006, false], [1006, false], [4400, true]])
    );
}
