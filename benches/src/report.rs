//! What a run found, as one JSON object.

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::{
    client::Client,
    process::{Cpu, Process},
};

/// The measured part of a run.
#[derive(Debug)]
pub struct Window {
    server: Option<(Process, Cpu)>,
    own: Cpu,
    at: Instant,
    reads: u64,
    answers: u64,
    messages: u32,
}

/// Of `/proc`, on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

impl Window {
    /// Everything from now on counts.
    pub fn begin(client: &mut Client, server: Option<Process>) -> Self {
        client.tally.begin();
        Self {
            server: server.map(|server| (server, server.cpu())),
            own: Process(std::process::id()).cpu(),
            at: Instant::now(),
            reads: client.reads,
            answers: client.answers,
            messages: client.tally.messages(),
        }
    }

    /// Everything up to now counted.
    pub fn end(&self, client: &Client) -> Map<String, Value> {
        let seconds = self.at.elapsed().as_secs_f64();
        let own = since(Process(std::process::id()).cpu(), self.own);
        let tally = &client.tally;
        let (reads, deliveries) = (client.reads - self.reads, tally.deliveries);
        let messages = f64::from(tally.messages() - self.messages);
        let at = |quantile| tally.latency_ns.value_at_quantile(quantile) as f64 / 1e6;
        let mut found = object(json!({
            "window_s": seconds,
            "messages": messages,
            "messages_per_s": messages / seconds,
            "pushes_per_s": (client.answers - self.answers) as f64 / seconds,
            "deliveries": deliveries,
            "deliveries_per_s": deliveries as f64 / seconds,
            "reads": reads,
            "events_per_read": deliveries as f64 / reads as f64,
            "client_cpu_s": own.run_ns as f64 / 1e9,
            "client_busy": own.run_ns as f64 / 1e9 / seconds,
        }));
        if 0 < deliveries {
            found.extend(object(json!({
                "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": at(1.0),
            })));
        }
        if let Some((server, before)) = self.server {
            let cpu = since(server.cpu(), before);
            let us = cpu.run_ns as f64 / 1e3;
            found.extend(object(json!({
                "server_cpu_s": us / 1e6,
                "server_busy": us / 1e6 / seconds,
                "server_user_s": cpu.user_ticks as f64 / TICKS_PER_SECOND,
                "server_system_s": cpu.system_ticks as f64 / TICKS_PER_SECOND,
                "server_us_per_delivery": us / deliveries as f64,
                "server_us_per_message": us / messages,
            })));
        }
        found
    }
}

/// CPU time between two looks.
pub fn since(now: Cpu, before: Cpu) -> Cpu {
    Cpu {
        run_ns: now.run_ns.saturating_sub(before.run_ns),
        user_ticks: now.user_ticks.saturating_sub(before.user_ticks),
        system_ticks: now.system_ticks.saturating_sub(before.system_ticks),
    }
}

/// The fields of an object; numbers that are none (nothing was delivered) are left out.
pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    }
}
