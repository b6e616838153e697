//! The page for people, in Chromium: what it shows of events and of its connection.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    auth::reader::{self, claims},
    support::{
        browser::Browser,
        eventually,
        gateway::{Gateway, message},
        jwks::{KeyServer, sign},
        redis::free_port,
    },
};

/// Opens the page and waits until its stream is open.
pub fn open(gateway: &Gateway) -> Browser {
    let browser = Browser::start();
    browser.open(&format!("http://{}/", gateway.address));
    until_state(&browser, "open");
    browser
}

fn until_state(browser: &Browser, state: &str) {
    let is_state = format!("return document.getElementById('state').textContent === '{state}'");
    browser.until(state, &is_state);
}

/// Presses the button with this id.
fn click(browser: &Browser, id: &str) {
    browser.run(&format!("document.getElementById('{id}').click()"));
}

/// Waits until the text of the element with this id contains `part`, and returns the text.
fn until_text(browser: &Browser, id: &str, part: &str) -> String {
    let text = format!("const text = document.getElementById('{id}').textContent;");
    let part = json!(part);
    let text = browser.until(id, &format!("{text} return text.includes({part}) && [text]"));
    text[0].as_str().unwrap().to_owned()
}

/// Waits for a number of events, and returns their data, newest first.
fn until_events(browser: &Browser, count: usize) -> Vec<String> {
    let data = browser.until(
        "the events are there",
        &format!(
            "const rows = [...document.querySelectorAll('#events .event .data')];
             return rows.length === {count} && rows.map(row => row.textContent);"
        ),
    );
    serde_json::from_value(data).unwrap()
}

/// Sets fields of a form and sends it.
fn send(browser: &Browser, form: &str, fields: &Value) {
    browser.run(&format!(
        "const form = document.getElementById('{form}');
         for (const [name, value] of Object.entries({fields})) form.elements[name].value = value;
         form.requestSubmit();"
    ));
}

fn assert_no_errors(browser: &Browser) {
    let console = browser.console();
    assert!(console.is_empty(), "the console has {console:?}");
}

#[test]
fn events_are_shown_as_text() {
    const ENTER: &str = "\u{E007}";
    let gateway = Gateway::dev(&[]);
    gateway.publish("orders", "before the page");
    let browser = open(&gateway);
    let attack =
        "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>";
    gateway.publish("orders", attack);
    let number =
        "{\"n\":12345678901234567890,\"n\":1.50,\"a\":[],\"o\":{},\"s\":\"\\u003cb>\\\"\"}";
    let mut typed = message(number, "1");
    typed["attributes"] = json!({ "event": "stream-end", attack: attack, "__proto__": "p" });
    typed["orderingKey"] = json!(attack);
    gateway.push("orders", &typed);
    gateway.publish("parcels", [0xff, 0x00]);
    let data = until_events(&browser, 4);
    assert_eq!(data, ["(base64) /wA=", number, attack, "before the page"]);
    let row = "const row = document.querySelectorAll('#events .event')[1];";
    browser.run(&format!("{row} row.querySelector('summary').focus()"));
    browser.press(ENTER);
    let whole = browser.until(
        "the key opens the event",
        &format!(
            "{row} const lists = [...row.querySelectorAll('dl')];
             const pairs = list => Object.fromEntries(
                 [...list.querySelectorAll('dt')].map(it => ['@' + it.textContent, it.nextSibling.textContent]));
             return row.querySelector('pre') && [row.querySelector('pre').textContent, ...lists.map(pairs)];"
        ),
    );
    let lines = "{\n  \"n\": 12345678901234567890,\n  \"n\": 1.50,\n  \"a\": [],\n  \"o\": {},\n  \
                 \"s\": \"\\u003cb>\\\"\"\n}";
    assert_eq!(whole[0], lines);
    let attack_name = format!("@{attack}");
    assert_eq!(whole[1], json!({ "@event": "stream-end", attack_name: attack, "@__proto__": "p" }));
    assert_eq!(
        (&whole[2]["@Ordering key"], &whole[2]["@Message id"]),
        (&json!(attack), &json!("1"))
    );
    assert!(whole[2]["@Storing to arrival"].as_str().unwrap().ends_with(" ms"), "{whole}");
    let times = browser.run(
        "return [...document.querySelectorAll('#events .event small')].map(it => it.textContent)",
    );
    assert_eq!(times[3], "replay");
    assert!(times[1].as_str().unwrap().ends_with(" ms"), "{times}");
    gateway.publish("orders", "long ".repeat(60_000));
    until_events(&browser, 5);
    browser.run("document.querySelector('#events summary').click()");
    let end = browser.until(
        "it is open",
        "const text = document.querySelector('#events pre'); return text && [text.textContent.slice(-40)]",
    );
    assert!(end[0].as_str().unwrap().ends_with("\n… and 200,000 more characters"), "{end}");
    let elements =
        "return [document.title, document.querySelectorAll('main img, main script').length]";
    assert_eq!(browser.run(elements), json!(["Stream Events", 0]));
    assert_no_errors(&browser);
    let policy = browser.run(
        "const script = document.createElement('script');
         try { script.textContent = 'window.ran = true'; document.head.append(script); } catch {}
         return window.ran === undefined;",
    );
    assert_eq!(policy, true, "the page's policy lets no inline script run");
}

#[test]
fn the_page_survives_a_restart_of_the_gateway() {
    let listen = format!("127.0.0.1:{}", free_port());
    let mut gateway = Gateway::dev(&[("listen", &listen)]);
    let browser = open(&gateway);
    gateway.publish("orders", "before");
    until_events(&browser, 1);
    gateway.stop();
    until_text(&browser, "state", "The gateway cannot be reached. Trying again in ");
    until_text(&browser, "events", "The gateway is shutting down.");
    let gateway = Gateway::dev(&[("listen", &listen)]);
    gateway.publish("orders", "while the page was away");
    until_state(&browser, "open");
    gateway.publish("orders", "after");
    assert_eq!(until_events(&browser, 3), ["after", "while the page was away", "before"]);
    let gap = browser.run("return document.querySelector('#events .gap .data').textContent");
    assert_eq!(gap, "Gap. Some events may be missing: the gateway was restarted.");
}

#[test]
fn a_cut_connection_resumes_and_reports_gaps() {
    let gateway = Gateway::dev(&[("ring-events", "3")]);
    let browser = open(&gateway);
    gateway.publish("orders", "0");
    until_events(&browser, 1);
    let cursor = browser.run("return document.getElementById('cursor').textContent");
    let cuts = [(1.0, 2, "No gap: nothing was lost.", 3), (2.0, 5, "Gap. Some events are gone", 6)];
    for (cuts, published, lost, rows) in cuts {
        click(&browser, "cut");
        until_text(&browser, "report", "The connection is cut. It opens again in 3 s.");
        gateway.until_metric("stream_events_streams_ended_total{reason=\"client\"}", cuts);
        for n in 0..published {
            gateway.publish("orders", n.to_string());
        }
        let report = until_text(&browser, "report", lost);
        let came = format!(" {} events of that time came afterwards.", published.min(3));
        assert!(report.contains(&came), "{report}");
        assert!(report.contains("The stream resumed after "), "{report}");
        until_events(&browser, rows);
    }
    let notes = until_text(&browser, "events", "You have cut the connection.");
    assert!(notes.contains("and resumes"), "{notes}");
    assert_ne!(browser.run("return document.getElementById('cursor').textContent"), cursor);
    assert_eq!(browser.run("return document.querySelectorAll('#events .gap').length"), 1);
    assert_no_errors(&browser);
}

#[test]
fn a_filter_selects_and_refusals_are_explained() {
    let gateway = Gateway::dev(&[("topic", "orders"), ("topic", "parcels")]);
    let browser = open(&gateway);
    let filter = "attributes.customer = \"it's c1\"";
    send(&browser, "filter", &json!({ "topic": "orders, parcels", "filter": filter, "begin": "" }));
    until_text(&browser, "events", "The stream is open for orders, parcels.");
    for (topic, id, customer) in
        [("orders", "1", "it's c1"), ("orders", "2", "c2"), ("parcels", "3", "it's c1")]
    {
        let mut message = message(id, id);
        message["attributes"] = json!({ "customer": customer });
        gateway.push(topic, &message);
    }
    assert_eq!(until_events(&browser, 2), ["3", "1"]);
    curl_follows(&gateway, &browser);
    for (field, value, text) in [
        ("topic", "clicks", "The gateway answered 404 Not Found: topic: "),
        ("topic", "no/topic", "The gateway answered 400 Bad Request: topic: "),
        ("filter", "customer = 1", "The gateway answered 400 Bad Request: filter: "),
    ] {
        send(&browser, "filter", &json!({ "topic": "", "filter": "", field: value }));
        until_text(&browser, "refusal", text);
        let invalid =
            "return [...document.querySelectorAll('[aria-invalid=true]')].map(it => it.name)";
        assert_eq!(browser.run(invalid), json!([field]));
    }
    send(&browser, "filter", &json!({ "topic": "", "filter": "" }));
    until_state(&browser, "open");
    // The name of a topic is a button: a click on it follows this topic.
    browser.until(
        "the topics are there",
        "return document.querySelectorAll('#topics tr').length === 2",
    );
    browser.run("document.querySelector('#topics button').click()");
    until_text(&browser, "events", "The stream is open for orders.");
}

/// Runs the command of "Copy as curl". The command has the filter of the page, and begins after the
/// newest event of the page.
fn curl_follows(gateway: &Gateway, browser: &Browser) {
    click(browser, "copy");
    let command = until_text(browser, "command", "curl -NG");
    let mut message = message("4", "4");
    message["attributes"] = json!({ "customer": "it's c1" });
    gateway.push("orders", &message);
    gateway.publish("orders", "5");
    let output = eventually("curl has the event", || {
        let command = format!("{command} -sS --max-time 1");
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (text.contains("stream-open") && text.contains("\"data\"")).then_some(text)
    });
    let lines = output.lines().filter(|line| !line.is_empty());
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let data: Vec<_> = lines.iter().filter_map(|line| line.get("data")).collect();
    assert_eq!(data, [&json!(4)], "{output}");
}

#[test]
fn a_paused_page_counts_and_goes_on() {
    let gateway = Gateway::dev(&[]);
    let browser = open(&gateway);
    gateway.publish("orders", "1");
    until_events(&browser, 1);
    click(&browser, "pause");
    gateway.publish("orders", "2");
    gateway.publish("orders", "3");
    until_text(&browser, "pause", "Continue (2 new)");
    assert_eq!(until_events(&browser, 1), ["1"]);
    click(&browser, "pause");
    assert_eq!(until_events(&browser, 3), ["3", "2", "1"]);
    until_text(&browser, "pause", "Pause");
    until_text(&browser, "seen", "3 seen");
    until_text(&browser, "news", "new event");
    click(&browser, "clear");
    until_events(&browser, 0);
}

#[test]
fn the_form_publishes_in_dev() {
    let gateway = Gateway::dev(&[]);
    let browser = open(&gateway);
    browser.until("the form is there", "return !document.getElementById('publish-panel').hidden");
    let attributes = "event=created\n\ncustomer=a=b&c";
    let fields =
        json!({ "topic": "a.b", "data": "{\"id\":\"ü\"}", "attributes": attributes, "key": "k" });
    send(&browser, "publish", &fields);
    let said = until_text(&browser, "published", "Stored as ");
    assert_eq!(until_events(&browser, 1), ["{\"id\":\"ü\"}"]);
    let page = gateway.get("/events?mode=poll&since=1h&topic=a.b", &[]).json();
    let event = &page["events"][0];
    assert!(said.contains(event["id"].as_str().unwrap()), "{said}: {event}");
    assert_eq!(event["attributes"], json!({ "event": "created", "customer": "a=b&c" }));
    assert_eq!(event["ordering_key"], "k");
    for (fields, text) in [
        (
            json!({ "topic": "no/topic" }),
            "The gateway answered 400 Bad Request: \"no/topic\" is not a topic",
        ),
        (json!({ "attributes": "x" }), "The attribute x has no value: write name=value."),
    ] {
        send(&browser, "publish", &fields);
        until_text(&browser, "published", text);
    }
}

#[test]
fn a_reader_gives_its_token_to_the_page() {
    let keys = KeyServer::start();
    let gateway = reader::gateway(&keys, &[("page", "on"), ("read-cookie", "session")]);
    gateway.publish("orders", "granted");
    gateway.publish("secret", "not granted");
    let browser = Browser::start();
    browser.open(&format!("http://{}/", gateway.address));
    until_text(&browser, "token-reason", "The gateway answered 401 Unauthorized");
    let focused = browser.run("return document.activeElement.name");
    assert_eq!(focused, "token");
    send(&browser, "token", &json!({ "token": "two words" }));
    until_text(&browser, "token-reason", "This is no token");
    let token = sign(&claims(&["orders"]));
    send(&browser, "token", &json!({ "token": format!("Bearer {token}") }));
    until_state(&browser, "open");
    assert_eq!(until_events(&browser, 1), ["granted"]);
    let topics = browser.until(
        "the topics are there",
        "const topics = [...document.querySelectorAll('#topics button')].map(it => it.textContent);
         return topics.length > 0 && topics;",
    );
    assert_eq!(topics, json!(["orders"]));
    click(&browser, "copy");
    let command = until_text(&browser, "command", "\"Authorization: Bearer $TOKEN\"");
    assert!(!command.contains(&token), "{command}");
    let kept = browser.run(&format!(
        "return [location.search + location.hash, localStorage.length, sessionStorage.length,
                 document.cookie, document.getElementById('token').hidden,
                 document.getElementById('publish-panel').hidden,
                 document.documentElement.outerHTML.includes('{token}')]"
    ));
    assert_eq!(kept, json!(["", 0, 0, "", true, true, false]));
    send(&browser, "filter", &json!({ "topic": "secret" }));
    until_text(&browser, "token-reason", "The gateway answered 403 Forbidden: topic: ");
    // A reader with a cookie needs no form.
    browser.run(&format!("document.cookie = 'session={token}'"));
    browser.open(&format!("http://{}/", gateway.address));
    until_state(&browser, "open");
    assert_eq!(until_events(&browser, 1), ["granted"]);
}
