//! Streams come and go.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{
    Result,
    arguments::{Churn, Common},
    client::Client,
    process::{Process, rest},
    report::{Window, object},
    socket::raise_file_limit,
    tally::Shape,
};

/// After which a server has noticed that its readers are gone.
const NOTICE: Duration = Duration::from_secs(1);

pub fn run(common: &Common, churn: &Churn) -> Result<(Map<String, Value>, Client)> {
    raise_file_limit();
    let shape = Shape { streams: churn.streams, topics: 1, per_stream: 1 };
    let mut client = Client::new(common.target()?, shape, common.size, 0, 0)?;
    let process = common.process();
    let before = process.map(Process::sockets);
    // The first ones make the server grow.
    client.open(0..churn.streams.min(100), None)?;
    client.close(0..churn.streams);
    let window = Window::begin(&mut client, process);
    for _ in 0..churn.rounds {
        client.open(0..churn.streams, None)?;
        client.close(0..churn.streams);
    }
    // Closing is work too.
    rest(&mut client, NOTICE)?;
    let mut found = window.end(&client);
    let connections = churn.streams * churn.rounds;
    found.insert("connections".to_owned(), connections.into());
    if let (Some(process), Some(before)) = (process, before) {
        let cpu = found.get("server_cpu_s").and_then(Value::as_f64).unwrap_or_default();
        found.extend(object(json!({
            "server_us_per_connection": cpu * 1e6 / connections as f64,
            "sockets_left": process.sockets().saturating_sub(before),
        })));
    }
    Ok((found, client))
}
