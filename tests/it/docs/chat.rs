//! The page of `examples/chat`, in Chromium: three replicas, Redis, and nginx in front.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    browser::Browser,
    eventually,
    nginx::Nginx,
    process::{OPEN, Process, stream_events},
    redis::{RedisServer, free_port},
};

/// Returns the document of the page with this name.
const PAGE: &str = "const page = (name) => document.getElementById(name).contentDocument;";

fn replica(address: SocketAddr, redis: &str) -> Process {
    let address = address.to_string();
    let flags = ["--backplane", redis, "--publish-auth", "none", "--presence-grace", "8 s"];
    let mut arguments = [&OPEN[..], &flags].concat();
    arguments[2] = &address;
    let process = Process::start(&mut stream_events(&arguments));
    process.listen();
    process
}

/// Opens pages in frames of one window.
fn open(browser: &Browser, names: &[&str]) {
    browser.run(&format!(
        "for (const name of {}) {{
           const frame = document.createElement('iframe');
           frame.id = name;
           frame.src = `/chat/?room=lobby&name=${{name}}`;
           document.body.append(frame);
         }}",
        json!(names)
    ));
    for name in names {
        let state = format!(
            "{PAGE} return page('{name}')?.getElementById('state')?.textContent === 'open'"
        );
        browser.until("the page is open", &state);
    }
}

fn say(browser: &Browser, name: &str, text: &str) {
    browser.run(&format!(
        "{PAGE} page('{name}').getElementById('text').value = '{text}';
         page('{name}').getElementById('say').requestSubmit();"
    ));
}

/// Returns the lines of a page: the name and the text of each, and the number of lines that are not
/// confirmed.
fn lines(browser: &Browser, name: &str) -> (Vec<String>, u64) {
    let shown = browser.run(&format!(
        "{PAGE} const lines = [...page('{name}').querySelectorAll('#lines .line')];
         const text = (line) => `${{line.children[1].textContent}}: ${{line.lastChild.textContent}}`;
         return [lines.map(text), page('{name}').querySelectorAll('.pending, .note').length];"
    ));
    (serde_json::from_value(shown[0].clone()).unwrap(), shown[1].as_u64().unwrap())
}

fn members(browser: &Browser, name: &str) -> Value {
    browser.run(&format!(
        "{PAGE} return [...page('{name}').querySelectorAll('#members li')].map((it) => it.textContent);"
    ))
}

/// Kills each replica once, while all three pages send.
#[test]
fn no_line_is_missed_or_doubled_while_replicas_are_killed() {
    const ROUNDS: usize = 9;
    let names = ["alice", "bob", "carol"];
    let redis = RedisServer::start();
    let url = redis.url();
    let addresses = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let mut replicas = addresses.map(|address| Some(replica(address, &url)));
    let nginx = Nginx::local(&addresses);
    let browser = Browser::start();
    browser.open(&format!("http://{}/healthz", nginx.address));
    open(&browser, &names);
    let mut sent = Vec::new();
    for round in 0..ROUNDS {
        // The pages of the replica are cut, and their lines sent again to another one.
        let killed = (round % 3 == 1).then(|| {
            let mut process = replicas[round / 3].take().unwrap();
            process.signal(Signal::KILL);
            process.wait();
            round / 3
        });
        for name in names {
            let text = format!("line {round}");
            say(&browser, name, &text);
            sent.push(format!("{name}: {text}"));
        }
        if let Some(at) = killed {
            replicas[at] = Some(replica(addresses[at], &url));
        }
        let all_sent = |name| lines(&browser, name).0.len() == sent.len();
        eventually("all pages show all lines", || names.into_iter().all(all_sent).then_some(()));
    }
    let (shown, unconfirmed) = lines(&browser, names[0]);
    assert_eq!(unconfirmed, 0, "all are sent, and no page is told of a gap");
    let mut sorted = shown.clone();
    sorted.sort_unstable();
    sent.sort_unstable();
    assert_eq!(sorted, sent, "each line once");
    for name in names {
        assert_eq!(lines(&browser, name), (shown.clone(), 0), "{name}: the same in the same order");
        let own: Vec<_> = shown.iter().filter(|line| line.starts_with(name)).collect();
        assert!(own.is_sorted(), "{name}: its lines in the order in which it sent them");
    }
    // Who joins later sees the history, and who else is here.
    open(&browser, &["dave"]);
    let history = || (lines(&browser, "dave").0 == shown).then_some(());
    eventually("the history is there", history);
    let present = json!(["alice", "bob", "carol", "dave"]);
    for name in ["alice", "bob", "carol", "dave"] {
        eventually("all are here", || (members(&browser, name) == present).then_some(()));
    }
    browser.run("document.getElementById('dave').remove()");
    let left = json!(names);
    eventually("dave has left", || (members(&browser, "alice") == left).then_some(()));
}
