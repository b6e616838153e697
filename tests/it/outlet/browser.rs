//! A real browser: the demo page, `examples/browser.html`, and pages that read in Chromium.

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

#[test]
fn the_demo_page_shows_what_arrives() {
    let gateway = Gateway::dev(&[]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", gateway.address));
    browser.until("it is open", "return document.getElementById('state').textContent === 'open'");
    let attack = "<img src=x onerror=\"document.title='hacked'\">";
    gateway.publish("orders", attack);
    let mut typed = message("typed", "1");
    typed["attributes"] = json!({ "event": "stream-end" });
    gateway.push("orders", &typed);
    let mut named = message("two\n lines", "2");
    named["attributes"] = json!({ "event": "order-updated" });
    gateway.push("orders", &named);
    let rows = browser.until(
        "the events are there, and those with a type too",
        "const rows = [...document.querySelectorAll('#events tr:not(.control)')];
         return rows.length === 3 && rows.map(row => row.cells[3].textContent);",
    );
    assert_eq!(rows, json!(["two\n lines", "typed", attack]));
    browser.until(
        "the attributes are there",
        "const rows = [...document.querySelectorAll('#events tr:not(.control)')];
         return rows[0].cells[4].textContent === 'event=order-updated' && !rows[2].cells[4].textContent;",
    );
    let command = browser.run("return document.querySelector('main code').textContent");
    assert!(command.to_string().contains(&gateway.address.to_string()), "{command}");
    assert_eq!(browser.run("return document.title"), "Stream Events", "nothing of the data ran");
    let policy = browser.run(
        "const e = document.createElement('script'); e.textContent = 'window.ran = true';
         document.head.append(e); return window.ran === undefined;",
    );
    assert_eq!(policy, true, "the page's policy lets no inline script run");
}

/// Of each event its topic, which the stream does not name; a long one in a line until it is opened,
/// with the keyboard too; and what the gateway says as sentences.
#[test]
fn the_demo_page_names_topics_and_folds_long_events() {
    const ENTER: &str = "\u{E007}";
    let gateway = Gateway::dev(&[("topic", "orders"), ("topic", "parcels")]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", gateway.address));
    browser.until("it is open", "return document.getElementById('state').textContent === 'open'");
    let long = format!("{{\"text\":\"{}\"}}", "many words ".repeat(2_000));
    let lines = vec!["a line"; 300].join("\n");
    gateway.publish("orders", "short");
    gateway.publish("parcels", &long);
    gateway.publish("orders", &lines);
    let topics = browser.until(
        "the topics are there",
        "const rows = [...document.querySelectorAll('#events tr:not(.control)')];
         const topics = rows.map(row => row.cells[1].textContent);
         return topics.length === 3 && topics.every(topic => topic) && topics;",
    );
    assert_eq!(topics, json!(["orders", "parcels", "orders"]));
    let row = "const row = document.querySelectorAll('#events tr:not(.control)')";
    for (at, whole) in [(1, &long), (0, &lines)] {
        let height = browser.run(&format!("{row}[{at}]; return row.offsetHeight"));
        assert!(height.as_f64().unwrap() < 60.0, "folded it is {height} px high");
        browser.run(&format!("{row}[{at}]; row.querySelector('summary').focus()"));
        browser.press(ENTER);
        let text = browser.until(
            "the key opens it",
            &format!(
                "{row}[{at}]; const d = row.querySelector('details');
                      return d.open && [d.querySelector('pre').textContent];"
            ),
        );
        assert_eq!(text, json!([whole]));
        let fits = browser.run(&format!("{row}[{at}]; return row.offsetHeight < innerHeight"));
        assert_eq!(fits, true, "opened it does not fill the window");
    }
    let control =
        browser.run("return document.querySelector('#events tr.control summary').textContent");
    assert_eq!(control, "The stream is open for all topics.");
    for (asked, sentence) in [
        ("clicks", "The gateway answered 404 Not Found: "),
        ("no/topic", "The gateway answered 400 Bad Request: "),
    ] {
        browser.run(&format!(
            "document.querySelector('#filter input').value = '{asked}';
             document.querySelector('#filter button').click();"
        ));
        browser.until(
            "the refusal is a sentence",
            &format!(
                "const text = document.getElementById('state').textContent;
                      return text.startsWith('{sentence}') && !text.includes('{{');"
            ),
        );
    }
}

#[test]
fn the_demo_page_says_that_no_gateway_is_there() {
    let mut gateway = Gateway::dev(&[]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", gateway.address));
    browser.until("it is open", "return document.getElementById('state').textContent === 'open'");
    gateway.stop();
    browser.until(
        "it is told",
        "return document.getElementById('state').textContent
             .startsWith('The gateway cannot be reached. Trying again in ');",
    );
    let end = browser.run(
        "return [...document.querySelectorAll('#events tr.control summary')]
             .map(summary => summary.textContent);",
    );
    assert_eq!(end[0], "The gateway is shutting down.", "{end}");
}

/// What the page asks for topics and attributes with.
#[test]
fn the_origins_of_events_are_told_to_the_page_alone() {
    let gateway = Gateway::dev(&[]);
    let mut events = gateway.events("");
    let mut message = message("x", "1");
    message["attributes"] = json!({ "region": "eu" });
    gateway.push("orders", &message);
    let id = events.next().id;
    let origin = json!({ "topic": "orders", "attributes": { "region": "eu" } });
    let answer = gateway.get(&format!("/page/origins?ids={id},1-1"), &[]);
    assert_eq!((answer.status, answer.json()), (200, json!({ id: origin })));
    let many = vec!["1-1"; 101].join(",");
    for query in ["", "?ids=", "?ids=x", &format!("?ids={many}")] {
        assert_eq!(gateway.get(&format!("/page/origins{query}"), &[]).status, 400, "{query}");
    }
    let serve = Gateway::serve(&[("push-auth", "none"), ("read-auth", "anonymous")]);
    assert_eq!(serve.get("/page/origins?ids=1-1", &[]).status, 404, "dev has the page");
}

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
