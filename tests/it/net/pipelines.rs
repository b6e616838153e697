//! Pipelined requests on one connection, cut into TCP segments at random: each request is answered, in
//! order, and no part of one is read as another. Without TLS and over TLS.

use std::{io::Write as _, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::support::{gateway::Gateway, http1, seed};

/// Requests that leave the connection open, and the statuses of their answers.
const REQUESTS: [(&str, u16); 9] = [
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ("GET /nowhere HTTP/1.1\r\nHost: localhost\r\nX: y\r\n\r\n", 404),
    ("HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ("\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ("\r\n\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ("DELETE /events HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    // The field `data` decodes to `GET / HTT`.
    (
        "POST /push/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 35\r\n\r\n\
         {\"message\":{\"data\":\"R0VUIC8gSFRU\"}}",
        204,
    ),
    (
        "\r\n\r\nPOST /push/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 43\r\n\r\n\
         {\"message\":\r\n\r\n{\"data\":\"R0VUIC8gSFRU\"}\r\n\r\n}",
        204,
    ),
    (
        "POST /push/orders HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         10\r\n{\"message\":{\"dat\r\n10;x=y\r\na\":\"R0VUIC8gSFRU\r\n3\r\n\"}}\r\n0\r\n\r\n",
        204,
    ),
];
/// Last requests of a pipeline, which close the connection.
const LAST: [(&str, u16); 7] = [
    ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
    ("GET /%68ealthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
    ("GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
    ("GET /nowhere HTTP/1.1\nHost: localhost\n\n", 400),
    ("GET /nowhere HTTP/1.1\r\nHost: localhost\n\n", 400),
    ("GET /events?topics=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
    (
        "POST /push/orders HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\n\
         Content-Length: 35\r\n\r\n{\"message\":{\"data\":\"R0VUIC8gSFRU\"}}",
        204,
    ),
];
const PIPELINES: usize = 100;

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut random = StdRng::seed_from_u64(seed("pipelines"));
    for (name, gateway) in Gateway::plain_and_tls(&[]) {
        let pipelines: Vec<_> = (0..PIPELINES).map(|_| pipeline(&mut random)).collect();
        std::thread::scope(|scope| {
            let send_one = |pipeline: &Pipeline| {
                let segments = pipeline.segments.clone();
                let gateway = &gateway;
                scope.spawn(move || send(gateway, &segments))
            };
            let clients: Vec<_> = pipelines.iter().map(send_one).collect();
            for (client, Pipeline { segments, statuses }) in clients.into_iter().zip(&pipelines) {
                assert_eq!(&client.join().unwrap(), statuses, "{name}: {segments:?}");
            }
        });
    }
}

/// Requests cut into segments, and the expected statuses.
struct Pipeline {
    segments: Vec<String>,
    statuses: Vec<u16>,
}

/// Returns a random pipeline.
fn pipeline(random: &mut StdRng) -> Pipeline {
    let (mut rest, mut statuses) = (String::new(), Vec::new());
    for _ in 0..random.random_range(1..5) {
        let (request, status) = REQUESTS.choose(random).unwrap();
        rest.push_str(request);
        statuses.push(*status);
    }
    let (last, status) = LAST.choose(random).unwrap();
    rest.push_str(last);
    statuses.push(*status);
    let mut segments = Vec::new();
    for _ in 0..random.random_range(0..4) {
        let left = rest.split_off(random.random_range(0..rest.len()));
        segments.push(std::mem::replace(&mut rest, left));
    }
    segments.push(rest);
    Pipeline { segments, statuses }
}

/// Sends the segments and returns the statuses of the answers.
fn send(gateway: &Gateway, segments: &[String]) -> Vec<u16> {
    let mut socket = http1::connect(gateway.address);
    for segment in segments {
        // The gateway closes the connection after a refusal.
        if socket.write_all(segment.as_bytes()).is_err() {
            break;
        }
        // After a pause the gateway mostly reads the next segment separately.
        std::thread::sleep(Duration::from_millis(5));
    }
    let text = http1::read_on(socket, Duration::from_secs(2));
    assert!(text.ends_with(http1::CLOSED), "the connection is not closed: {segments:?}: {text}");
    let status = |rest: &str| rest.get(2..5)?.parse().ok();
    text.split("HTTP/1.").filter_map(status).filter(|status| *status != 100).collect()
}
