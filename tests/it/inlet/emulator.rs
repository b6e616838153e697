//! Pushes from Google's Pub/Sub emulator, which forms messages as Google does.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{eventually, gateway::Gateway, http1, process::Process};

/// Folder of the jar in the gcloud CLI.
const JAR: &str = "platform/pubsub-emulator/lib";

/// Returns the emulator's jar, if the gcloud CLI has installed it.
fn jar() -> Option<PathBuf> {
    let roots =
        ["/usr/lib/google-cloud-sdk", "/opt/google-cloud-sdk", "/snap/google-cloud-cli/current"];
    let home = std::env::var("HOME").unwrap_or_default();
    let own = std::env::var("CLOUDSDK_ROOT_DIR").ok();
    let roots = roots.iter().map(ToString::to_string).chain(own);
    roots.chain([format!("{home}/google-cloud-sdk")]).find_map(|root| {
        let mut jars = std::fs::read_dir(PathBuf::from(root).join(JAR)).ok()?.flatten();
        jars.find(|file| file.file_name().to_string_lossy().ends_with("-all.jar"))
            .map(|file| file.path())
    })
}

/// Emulator process, which ends when this is dropped.
struct Emulator {
    address: SocketAddr,
    _process: Process,
}

impl Emulator {
    fn start(jar: &PathBuf) -> Self {
        // The emulator does not accept port 0, so it gets a port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("java");
        command.arg("-jar").arg(jar).arg("--host=127.0.0.1");
        command.arg(format!("--port={}", address.port())).stdout(Stdio::null());
        let process = Process::start(&mut command);
        eventually("the emulator listens", || std::net::TcpStream::connect(address).ok());
        Self { address, _process: process }
    }

    /// Sends a request to the REST API and returns the answer.
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let headers = [("Content-Type", "application/json")];
        let path = format!("/v1/projects/test/{path}");
        let body = body.to_string();
        let answer = http1::request(self.address, method, &path, &headers, body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    fn publish(&self, topic: &str, messages: &Value) {
        let path = format!("topics/{topic}:publish");
        self.call("POST", &path, &json!({ "messages": messages }));
    }
}

#[test]
fn messages_arrive_wrapped_and_unwrapped() {
    let Some(jar) = jar() else {
        eprintln!("NOT TESTED: the Pub/Sub emulator (gcloud's pubsub-emulator) is not installed");
        return;
    };
    let emulator = Emulator::start(&jar);
    let gateway = Gateway::dev(&[]);
    let push = |path: &str| format!("http://{}{path}", gateway.address);
    emulator.call("PUT", "topics/orders", &json!({}));
    let wrapped = json!({
        "topic": "projects/test/topics/orders", "enableMessageOrdering": true,
        "pushConfig": { "pushEndpoint": push("/push/wrapped") },
    });
    let by_name = json!({
        "topic": "projects/test/topics/orders",
        "pushConfig": { "pushEndpoint": push("/push") },
    });
    let unwrapped = json!({
        "topic": "projects/test/topics/orders",
        "pushConfig": {
            "pushEndpoint": push("/push/unwrapped"), "noWrapper": { "writeMetadata": true },
        },
    });
    let raw = json!({
        "topic": "projects/test/topics/orders",
        "pushConfig": {
            "pushEndpoint": push("/push/raw?payload=raw"), "noWrapper": { "writeMetadata": false },
        },
    });
    for (name, body) in
        [("wrapped-push", wrapped), ("by-name", by_name), ("unwrapped", unwrapped), ("raw", raw)]
    {
        emulator.call("PUT", &format!("subscriptions/{name}"), &body);
    }
    let mut of_wrapped = gateway.events("?topic=wrapped");
    let mut of_name = gateway.events("?topic=by-name");
    let mut of_unwrapped = gateway.events("?topic=unwrapped");
    let mut of_raw = gateway.events("?topic=raw");

    let messages = [
        json!({ "data": STANDARD.encode("{\"id\":1}"), "attributes": { "event": "made" } }),
        json!({ "data": STANDARD.encode("zwei\nZeilen ü"), "orderingKey": "k" }),
        json!({ "attributes": { "event": "only-attributes" } }),
        json!({ "data": STANDARD.encode("x".repeat(1_000_000)) }),
    ];
    for message in &messages {
        emulator.publish("orders", &json!([message]));
    }
    let large = "x".repeat(1_000_000);
    let want = [
        ("made", "{\"id\":1}"),
        ("message", "zwei\nZeilen ü"),
        ("only-attributes", ""),
        ("message", &large),
    ];
    // Pub/Sub guarantees an order only within an ordering key.
    for source in [&mut of_wrapped, &mut of_name, &mut of_unwrapped] {
        let mut seen: Vec<_> = (0..4).map(|_| source.next()).map(|e| (e.event, e.data)).collect();
        seen.sort();
        let mut want = want.map(|(event, data)| (event.to_owned(), data.to_owned())).to_vec();
        want.sort();
        assert!(seen == want, "{:?}", seen.iter().map(|(e, d)| (e, d.len())).collect::<Vec<_>>());
    }
    let mut lengths = [0; 4].map(|_| of_raw.next().data.len());
    lengths.sort_unstable();
    assert_eq!(lengths, [0, 8, 14, 1_000_000], "without metadata there is only data");
    gateway.until_metric("stream_events_pushes_total{outcome=\"stored\"}", 16.0);
}

/// The emulator pushes a message again until a gateway acks it.
#[test]
fn message_that_was_not_acked_is_pushed_again() {
    let Some(jar) = jar() else {
        eprintln!("NOT TESTED: the Pub/Sub emulator (gcloud's pubsub-emulator) is not installed");
        return;
    };
    let emulator = Emulator::start(&jar);
    // No process listens on this port yet: pushes fail until the gateway starts.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    emulator.call("PUT", "topics/orders", &json!({}));
    let push = json!({
        "topic": "projects/test/topics/orders",
        "pushConfig": { "pushEndpoint": format!("http://{address}/push/orders") },
    });
    emulator.call("PUT", "subscriptions/orders", &push);
    emulator.publish("orders", &json!([{ "data": STANDARD.encode("kept") }]));
    let gateway = Gateway::dev(&[("listen", &address.to_string())]);
    let mut source = gateway.events("?since=1h");
    assert_eq!(source.next().data, "kept");
}
