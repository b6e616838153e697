//! A real browser: `examples/browser.html`, and pages that read in Chromium. `page.rs` has the page for people.

use std::path::Path;

use serde_json::json;

use crate::{
    auth::reader,
    outlet::poll,
    support::{
        browser::Browser,
        eventually,
        gateway::{Gateway, message},
        jwks::{KeyServer, sign},
        nginx::Nginx,
        redis::free_port,
        tls::Certificate,
    },
};

/// The browser's own `EventSource`, through streams that end every second and a gateway that turns it
/// away at first: every event once, in order, and never `CLOSED`.
#[test]
fn event_source_resumes_by_itself() {
    let gateway = Gateway::dev(&[("stream-age-max", "1 s"), ("subscribers-max", "1")]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/healthz", gateway.address));
    let taken = gateway.events("");
    browser.run(
        "window.seen = []; window.ends = [];
         window.source = new EventSource('/events');
         source.onmessage = event => seen.push(event.data);
         source.addEventListener('stream-end', event => ends.push(JSON.parse(event.data).reason));
         source.addEventListener('stream-gap', event => seen.push('gap'));",
    );
    browser.until("it is told to come back", "return ends.length > 0 && ends");
    drop(taken);
    browser.until("it came back", "return ends.includes('max-age')");
    for n in 0..20 {
        gateway.publish("orders", n.to_string());
        if n % 5 == 0 {
            let ends = browser.run("return ends.length");
            browser.until("its stream ends", &format!("return ends.length > {ends}"));
        }
    }
    let seen = browser.until("all of it", "return seen.length >= 20 && seen");
    assert_eq!(seen, json!((0..20).map(|n| n.to_string()).collect::<Vec<_>>()));
    assert_eq!(browser.run("return source.readyState !== EventSource.CLOSED"), true);
}

/// Through nginx, over TLS and HTTP/2, for a page of another origin: while no gateway is there its
/// `EventSource` is told to come back, where nginx's own 502 would have closed it for good.
#[test]
fn event_source_waits_behind_nginx_for_a_gateway() {
    let port = free_port();
    let to = [([127, 0, 0, 1], port).into(); 2];
    let l7 = Nginx::l7(to, &Certificate::new(), &[("retry: $retry_ms", "retry: 300")]);
    let page = Gateway::dev(&[]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/healthz", page.address));
    browser.run(&format!(
        "window.seen = []; window.ends = []; window.opens = [];
         window.source = new EventSource('https://localhost:{}/events');
         source.onmessage = event => seen.push(event.data);
         source.addEventListener('stream-open', event => opens.push(event.data));
         source.addEventListener('stream-end', event => ends.push(event.data));",
        l7.address.port()
    ));
    browser.until("it is told to come back, again and again", "return ends.length > 2");
    let listen = format!("127.0.0.1:{port}");
    let gateway = Gateway::dev(&[("listen", &listen), ("trusted-proxies", "1")]);
    browser.until("it came back", "return opens.length > 0");
    gateway.publish("orders", "hello");
    let seen = browser.until("the event is there", "return seen.length > 0 && seen");
    assert_eq!(seen, json!(["hello"]));
    assert!(l7.access_log().contains("\"GET /events HTTP/2.0\" 200 "), "{}", l7.access_log());
}

#[test]
fn the_example_page_follows_a_gateway_of_another_origin() {
    let gateway = Gateway::dev(&[]);
    let browser = Browser::start();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/browser.html");
    let gateway_url = format!("http://{}", gateway.address);
    browser.open(&format!("file://{}?gateway={gateway_url}&topic=orders", page.display()));
    browser.until("it is open", "return document.getElementById('state').textContent === 'open'");
    gateway.publish("parcels", "not asked for");
    gateway.publish("orders", "<b>asked for</b>");
    let items = browser.until(
        "the event is there",
        "const items = [...document.querySelectorAll('#events li')];
         return items.length > 0 && items.map(item => item.textContent);",
    );
    assert_eq!(items, json!(["<b>asked for</b>"]));
}

/// A page of another port is of the same site, and the browser sends the reader's cookie with its
/// images and fetches, but no `Origin`.
#[test]
fn a_page_that_is_not_listed_opens_no_stream_with_the_readers_cookie() {
    let (keys, page) = (KeyServer::start(), Gateway::dev(&[]));
    let origin = format!("http://{}", page.address);
    let cookie = ("read-cookie", "session");
    let closed = reader::gateway(&keys, &[cookie]);
    let listed = reader::gateway(&keys, &[cookie, ("cors-origin", &origin)]);
    let token = sign(&reader::claims(&["*"]));
    let browser = Browser::start();
    browser.open(&format!("{origin}/healthz"));
    browser.run(&format!(
        "document.cookie = 'session={token}'; window.answered = [];
         const image = new Image();
         image.onload = image.onerror = () => answered.push('image');
         image.src = 'http://{0}/events?topic=image';
         fetch('http://{0}/events?topic=fetch', {{ mode: 'no-cors', credentials: 'include' }})
             .finally(() => answered.push('fetch'));",
        closed.address
    ));
    browser.until("both are answered", "return answered.length === 2");
    assert!(closed.metric("stream_events_streams_opened_total") < 1.0);
    // One that is listed does, and the gateway's own pages do.
    let open = "source.onmessage = event => seen.push(event.data);
                source.addEventListener('stream-open', event => seen.push('open'));";
    browser.run(&format!(
        "window.seen = [];
         window.source = new EventSource('http://{}/events', {{ withCredentials: true }}); {open}",
        listed.address
    ));
    browser.until("the listed page's is open", "return seen.includes('open')");
    browser.open(&format!("http://{}/healthz", closed.address));
    browser.run(&format!("window.seen = []; window.source = new EventSource('/events'); {open}"));
    browser.until("its own page's is open", "return seen.includes('open')");
}

/// nginx cuts the stream twice, and events are published while it is cut. The page gets each event that
/// matches its filter once: `latest=key` does not send the state again.
#[test]
fn event_source_with_a_filter_and_a_state_resumes_after_a_cut() {
    let gateway = Gateway::dev(&[("trusted-proxies", "1")]);
    let browser = Browser::start();
    let soon = [("worker_shutdown_timeout 60m;", "worker_shutdown_timeout 1ms;")];
    let certificate = Certificate::new();
    let l7 = Nginx::l7([gateway.address; 2], &certificate, &soon);
    browser.open(&format!("https://localhost:{}/readyz", l7.address.port()));
    let publish = |site: &str, key: &str, data: &str| {
        let mut message = message(data, data);
        message["orderingKey"] = key.into();
        message["attributes"] = json!({ "site": site });
        assert_eq!(gateway.push("readings", &message).status, 204);
    };
    publish("north", "a", "1");
    publish("north", "b", "2");
    publish("south", "a", "3");
    publish("north", "a", "4");
    browser.run(
        "window.seen = []; window.opens = []; window.cuts = 0;
         const query = new URLSearchParams({ topic: 'readings.*,readings', latest: 'key',
             format: 'message', filter: 'attributes.site = \"north\"' });
         window.source = new EventSource(`/events?${query}`);
         source.onmessage = message => {
             const event = JSON.parse(message.data);
             seen.push(`${event.topic} ${event.ordering_key} ${event.data}`);
         };
         source.onerror = () => cuts++;
         source.addEventListener('stream-gap', message => seen.push(message.data));
         source.addEventListener('stream-open',
             message => opens.push(JSON.parse(message.data).resumed));",
    );
    browser.until("the state is there", "return seen.length === 2 && seen");
    for (cut, during, after) in [(1, "5", "7"), (2, "8", "10")] {
        browser.run("cuts = 0");
        l7.reload();
        browser.until("the stream is cut", "return cuts > 0");
        publish("north", "a", during);
        publish("south", "b", &format!("hidden {cut}"));
        browser.until("it is open again", &format!("return opens.length > {cut}"));
        publish("north", "b", after);
    }
    let seen = browser.until("the last event", "return seen.at(-1).endsWith(' 10') && seen");
    let all = ["b 2", "a 4", "a 5", "b 7", "a 8", "b 10"].map(|event| format!("readings {event}"));
    assert_eq!(seen, json!(all));
    assert_eq!(browser.run("return opens"), json!([false, true, true]));
}

/// Each line is read before the next event is published.
#[test]
fn fetch_reads_lines_of_json_one_by_one() {
    let gateway = Gateway::dev(&[]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/healthz", gateway.address));
    browser.run(
        "window.lines = [];
         fetch('/events', { headers: { Accept: 'application/x-ndjson' } }).then(async answer => {
             const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
             for (let text = '', part; !(part = await reader.read()).done; ) {
                 const whole = (text + part.value).split('\\n');
                 text = whole.pop();
                 lines.push(...whole.filter(line => line).map(JSON.parse));
             }
         });",
    );
    browser.until("it is open", "return lines.length === 1 && 'stream-open' in lines[0]");
    for n in 1..6 {
        gateway.publish("orders", json!({ "n": n }).to_string());
        let line = format!("return lines.length === {n} + 1 && lines[{n}].data.n === {n}");
        browser.until("the line is there", &line);
    }
}

/// The browser sends the `ETag` of what it has cached by itself, and shows its page again when the
/// gateway answers 304.
#[test]
fn fetch_polls_with_the_etag_of_its_cache() {
    let gateway = Gateway::dev(&[("trusted-proxies", "1")]);
    let browser = Browser::start();
    // Without TLS: Chromium caches nothing that comes with a certificate that it does not know.
    let l7 = Nginx::l7([gateway.address; 2], &Certificate::new(), &[(" ssl http2;", ";")]);
    browser.open(&format!("http://{}/readyz", l7.address));
    let begin = poll::poll(&gateway, "&limit=0");
    gateway.publish("orders", "first");
    let fetch = |cache: &str, events: usize| {
        browser.run(&format!(
            "window.answer = null;
             fetch('/events?mode=poll&last_event_id={}', {{ cache: '{cache}' }})
                 .then(async got => answer = [got.status, (await got.json()).events.length]);",
            poll::next(&begin)
        ));
        assert_eq!(browser.until("an answer", "return answer"), json!([200, events]));
    };
    let answers = |expected: &[&str]| {
        eventually("nginx has logged the answers", || {
            let log = l7.access_log();
            let polls = log.lines().filter_map(|line| line.split("/events HTTP/1.1\" ").nth(1));
            let statuses: Vec<_> = polls.map(|rest| &rest[..3]).collect();
            (statuses == expected).then_some(())
        });
    };
    fetch("default", 1);
    answers(&["200"]);
    fetch("no-cache", 1);
    fetch("default", 1);
    answers(&["200", "304", "304"]);
    gateway.publish("orders", "second");
    fetch("no-cache", 2);
    answers(&["200", "304", "304", "200"]);
}
