//! Many streams come back at once, with the same last id.

use serde_json::{Map, Value};

use crate::{
    Result,
    arguments::{Common, Replay},
    client::Client,
    modes::fanout::{Pace, Until, publish},
    report::Window,
    socket::raise_file_limit,
    tally::Shape,
};

pub fn run(common: &Common, replay: &Replay) -> Result<(Map<String, Value>, Client)> {
    raise_file_limit();
    let shape = Shape { streams: 1, topics: 1, per_stream: 1 };
    // What was published, and the id before it: that of a first event, which one stream reads.
    let mut client = Client::new(common.target()?, shape, common.size, 1, 0)?;
    client.streams[0].blocks.keeps_ids = true;
    client.open(0..1, None)?;
    let first = client.publish(0, 0)?;
    client.until(Client::is_settled)?;
    let id = client.streams[0].blocks.id.clone();
    if id.is_empty() {
        return Err("the first event has no id".into());
    }
    publish(&mut client, Pace::Closed(16), Until::Messages(replay.events))?;
    client.close(0..1);
    if 0 < client.tally.violations {
        return Ok((Map::new(), client));
    }

    // The streams come back for it.
    let shape = Shape { streams: replay.streams, ..shape };
    let mut returned = Client::new(common.target()?, shape, common.size, 0, 0)?;
    returned.tally.expect_publishers(1);
    returned.tally.published(0);
    returned.tally.forgive();
    (0..replay.streams).for_each(|stream| returned.tally.resume(stream, &first));
    let window = Window::begin(&mut returned, common.process());
    (0..replay.events).for_each(|_| returned.tally.published(0));
    returned.open(0..replay.streams, Some(&id))?;
    returned.until(Client::is_settled)?;
    let mut found = window.end(&returned);
    returned.tally.compare_orders();
    // An event's age says nothing here.
    for name in ["p50_ms", "p99_ms", "p999_ms", "max_ms", "pushes_per_s", "messages_per_s"] {
        found.remove(name);
    }
    if let Some(cpu) = found.get("server_cpu_s").and_then(Value::as_f64) {
        let per_stream = cpu * 1e6 / replay.streams as f64;
        found.insert("server_us_per_stream".to_owned(), per_stream.into());
    }
    Ok((found, returned))
}
