//! Streams without messages: what they take, and what is left of it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{
    Result,
    arguments::{Common, Idle},
    client::Client,
    process::rest,
    report::object,
    socket::raise_file_limit,
    tally::Shape,
};

pub fn run(common: &Common, idle: &Idle) -> Result<(Map<String, Value>, Client)> {
    let process = common.process().ok_or("idle: --pid is wanted")?;
    let allowed = raise_file_limit();
    if allowed < idle.streams as u64 + 50 {
        return Err(format!("{allowed} files may be open: too few (ulimit -Hn)").into());
    }
    let shape = Shape { streams: idle.streams, topics: 1, per_stream: 1 };
    let mut client = Client::new(common.target()?, shape, common.size, 0, 0)?;
    process.settle(&mut client)?;
    let (before, sockets) = (process.memory(), process.sockets());
    client.open(0..idle.streams, None)?;
    process.settle(&mut client)?;
    let with = process.memory();
    let held = process.sockets().saturating_sub(sockets);
    client.close(0..idle.streams);
    rest(&mut client, Duration::from_secs(2))?;
    let after = process.memory();
    let per_stream =
        |with: u64, before: u64| with.saturating_sub(before) as f64 / idle.streams as f64;
    let found = object(json!({
        "memory_before": before,
        "memory_with": with,
        "memory_after": after,
        "pss_per_stream": per_stream(with.pss, before.pss),
        "private_per_stream": per_stream(with.private, before.private),
        "sockets_held": held,
        "sockets_left": process.sockets().saturating_sub(sockets),
    }));
    Ok((found, client))
}
