//! The server's memory, sockets and CPU over the run.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::{
    process::{Cpu, Memory, Process},
    report::{object, since},
};

const EVERY: Duration = Duration::from_secs(10);
/// Short runs have so many samples.
const SAMPLES_MIN: u32 = 40;

struct Sample {
    part: f64,
    memory: Memory,
    sockets: usize,
    busy: f64,
}

pub struct Watch {
    process: Process,
    began: Instant,
    run: Duration,
    at: Instant,
    cpu: Cpu,
    samples: Vec<Sample>,
}

impl Watch {
    pub fn begin(process: Process, run: Duration) -> Self {
        let now = Instant::now();
        Self { process, began: now, run, at: now, cpu: process.cpu(), samples: Vec::new() }
    }

    /// Looks when it is time, or now.
    pub fn look(&mut self, now: bool) {
        let passed = self.at.elapsed();
        if !now && passed < EVERY.min(self.run / SAMPLES_MIN) {
            return;
        }
        let cpu = self.process.cpu();
        self.samples.push(Sample {
            part: self.began.elapsed().as_secs_f64() / self.run.as_secs_f64(),
            memory: self.process.memory(),
            sockets: self.process.sockets(),
            busy: since(cpu, self.cpu).run_ns as f64 / 1e9 / passed.as_secs_f64(),
        });
        (self.at, self.cpu) = (Instant::now(), cpu);
    }

    /// For the line of each minute.
    pub fn last(&self) -> (u64, usize, f64) {
        self.samples
            .last()
            .map_or((0, 0, 0.0), |sample| (sample.memory.private, sample.sockets, sample.busy))
    }

    pub fn report(&self) -> Map<String, Value> {
        let busy = self.samples.iter().map(|sample| sample.busy);
        let near = |part: f64| {
            let distance = |sample: &&Sample| (sample.part - part).abs();
            let nearest = self.samples.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
            nearest.map(|sample| sample.memory.private)
        };
        object(json!({
            "private_5": near(0.05), "private_25": near(0.25), "private_50": near(0.5),
            "private_75": near(0.75), "private_100": near(1.0),
            "private_max": self.samples.iter().map(|sample| sample.memory.private).max(),
            "sockets_max": self.samples.iter().map(|sample| sample.sockets).max(),
            "busy_mean": busy.clone().sum::<f64>() / self.samples.len() as f64,
            "busy_max": busy.reduce(f64::max),
        }))
    }
}
