//! WebSockets in a drain: each is told to come back, spread over the drain.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::json;

use crate::support::{http1, process::serve, websocket::WebSocket};

const SOCKETS: usize = 1_000;
const DRAIN: Duration = Duration::from_secs(4);

/// Half of the sockets have no stream, since their client has sent no command yet.
#[test]
fn a_thousand_sockets_are_told_to_come_back_at_times_of_their_own() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (mut process, address) = serve(&["--drain-delay", "1 s", "--drain-timeout", "4 s"]);
    let open = |n: usize| {
        let path = if n.is_multiple_of(2) { "/ws?topic=orders" } else { "/ws" };
        WebSocket::on(http1::connect(address), path, &[])
    };
    let sockets: Vec<_> = (0..SOCKETS).map(open).collect();
    let mut late = open(0);
    assert_eq!(late.record()["type"], "open");
    process.signal(Signal::TERM);
    let start = Instant::now();
    let readers: Vec<_> = sockets
        .into_iter()
        .map(|mut socket| {
            let thread = std::thread::Builder::new().stack_size(256 * 1024);
            let read = move || {
                let (last, code) = socket.end();
                (start.elapsed(), last.unwrap(), code)
            };
            thread.spawn(read).unwrap()
        })
        .collect();
    let ends: Vec<_> = readers.into_iter().map(|thread| thread.join().unwrap()).collect();
    for (_, last, code) in &ends {
        assert_eq!((&last["type"], &last["reason"]), (&json!("end"), &json!("draining")));
        assert_eq!(*code, Some(1012));
    }
    let (status, _) = process.wait();
    assert_eq!(status.code(), Some(0), "{status}");
    for (name, of) in [("with a stream", 0), ("without a stream", 1)] {
        let ends: Vec<_> = ends.iter().skip(of).step_by(2).collect();
        let retries: BTreeSet<_> = ends.iter().map(|end| end.1["retry"].as_u64()).collect();
        assert!(100 < retries.len() && !retries.contains(&None), "{name}: {retries:?}");
        // As many ends in each quarter of the drain as a machine that is busy makes likely.
        let ms: Vec<_> = ends.iter().map(|end| end.0.as_millis()).collect();
        let (first, last) = (*ms.iter().min().unwrap(), *ms.iter().max().unwrap());
        let (over, drain) = (last - first, DRAIN.as_millis());
        assert!(drain / 2 < over && over <= drain + 1_000, "{name}: {over} ms");
        let mut quarters = [0; 4];
        for ms in ms {
            quarters[usize::try_from(((ms - first) * 4 / over).min(3)).unwrap()] += 1;
        }
        assert!(quarters.iter().all(|count| SOCKETS / 40 < *count), "{name}: {quarters:?}");
        eprintln!("{name}: {quarters:?} within {over} ms, {} values of retry", retries.len());
    }
}
