//! Some streams stop reading: how the others fare, and what the stalled ones hold.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::{
    Result,
    arguments::{Common, Stalled},
    client::Client,
    modes::{
        fanout::{Pace, Until, publish},
        kernel::Watch,
    },
    process::{Process, rest},
    report::{Window, object},
    socket::{local_port, raise_file_limit},
    tally::Shape,
};

const PUBLISHERS: usize = 4;

pub fn run(common: &Common, stalled: &Stalled) -> Result<(Map<String, Value>, Client)> {
    raise_file_limit();
    let shape = Shape { streams: stalled.streams, topics: 1, per_stream: 1 };
    let unread = stalled.stalled.min(stalled.streams);
    let mut client = Client::new(common.target()?, shape, common.size, PUBLISHERS, unread)?;
    client.open(0..stalled.streams, None)?;
    let memory_before = common.process().map(Process::memory);
    let mut ports = Vec::new();
    for number in stalled.streams - unread..stalled.streams {
        client.write_timeout(number)?;
        ports.extend(client.streams[number].socket.as_ref().map(local_port).transpose()?);
    }
    publish(&mut client, Pace::Closed(4), Until::Messages(20))?;
    let watch = Watch::start(common.address.port(), ports);
    let window = Window::begin(&mut client, common.process());
    let time = Until::Time(Duration::from_secs_f64(stalled.seconds));
    publish(&mut client, Pace::Rate(stalled.rate), time)?;
    let mut found = window.end(&client);
    client.tally.compare_orders();
    let memory_after = common.process().map(Process::memory);
    let until = Instant::now() + Duration::from_secs_f64(stalled.cut_wait);
    while Instant::now() < until && watch.seen().cut_after.len() < unread {
        rest(&mut client, Duration::from_millis(500))?;
    }
    let seen = watch.finish();
    let cuts: Vec<_> = seen.cut_after.values().map(Duration::as_secs_f64).collect();
    found.extend(object(json!({
        "stalled": unread,
        "kernel_bytes_max": seen.bytes_max.values().max(),
        "cut": cuts.len(),
        "cut_after_s": cuts.iter().copied().reduce(f64::max),
        "memory_before": memory_before,
        "memory_with": memory_after,
    })));
    Ok((found, client))
}
