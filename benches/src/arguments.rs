//! The command line of `load`.

use std::{fs, net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{
    Result,
    dialect::{Dialect, Target},
    process::Process,
};

/// Loads a server with streams and pushes, checks every stream for loss, doubles and order, and
/// prints one JSON object. Exit code 1 when anything is wrong.
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub mode: Mode,
}

#[derive(Debug, Args)]
pub struct Common {
    /// How the server is spoken to.
    #[arg(long)]
    pub dialect: Dialect,
    #[arg(long)]
    pub address: SocketAddr,
    /// The server's process, whose and whose descendants' CPU and memory are reported.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Bytes of an event's text.
    #[arg(long, default_value_t = 200)]
    pub size: usize,
    /// A file with the token that is sent with each push.
    #[arg(long)]
    pub token: Option<PathBuf>,
    /// Attributes of each message that the gateway gets, as a JSON object.
    #[arg(long)]
    pub attributes: Option<String>,
    /// Filter of each stream of the gateway, percent-encoded.
    #[arg(long)]
    pub filter: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Mode {
    /// Messages to many streams.
    Fanout(Fanout),
    /// Pushes, and nobody who reads.
    Ingest(Ingest),
    /// Many streams come back at once.
    Replay(Replay),
    /// Streams come and go.
    Churn(Churn),
    /// Streams without messages: memory.
    Idle(Idle),
    /// Some streams stop reading.
    Stalled(Stalled),
    /// Many streams for long, cut and stalled at random; each comes back with its last id.
    Soak(Soak),
}

#[derive(Debug, Args)]
pub struct Fanout {
    #[arg(long)]
    pub streams: usize,
    #[arg(long, default_value_t = 1)]
    pub topics: usize,
    /// Stream i follows so many topics from the i-th times this on.
    #[arg(long, default_value_t = 1)]
    pub topics_per_stream: usize,
    /// Messages per second.
    #[arg(long, required_unless_present = "closed")]
    pub rate: Option<f64>,
    /// As fast as it goes, with so many messages on their way at most.
    #[arg(long, conflicts_with = "rate")]
    pub closed: Option<usize>,
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Keep-alive connections, each with one request outstanding.
    #[arg(long, default_value_t = 4)]
    pub publishers: usize,
}

#[derive(Debug, Args)]
pub struct Ingest {
    /// Each with one request outstanding.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
}

#[derive(Debug, Args)]
pub struct Replay {
    #[arg(long, default_value_t = 1000)]
    pub streams: usize,
    #[arg(long, default_value_t = 100)]
    pub events: usize,
}

#[derive(Debug, Args)]
pub struct Churn {
    #[arg(long, default_value_t = 1000)]
    pub streams: usize,
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
}

#[derive(Debug, Args)]
pub struct Idle {
    #[arg(long)]
    pub streams: usize,
}

#[derive(Debug, Args)]
pub struct Stalled {
    #[arg(long, default_value_t = 40)]
    pub streams: usize,
    #[arg(long, default_value_t = 4)]
    pub stalled: usize,
    #[arg(long, default_value_t = 400.0)]
    pub rate: f64,
    #[arg(long, default_value_t = 8.0)]
    pub seconds: f64,
    /// How long to wait afterwards for the stalled ones to be cut.
    #[arg(long, default_value_t = 0.0)]
    pub cut_wait: f64,
}

#[derive(Debug, Args)]
pub struct Soak {
    #[arg(long, default_value_t = 10_000)]
    pub streams: usize,
    /// A part of one will do.
    #[arg(long, default_value_t = 60.0)]
    pub minutes: f64,
    /// Of all that is random; printed. What is drawn when depends on the server, too.
    #[arg(long)]
    pub seed: Option<u64>,
    #[arg(long, default_value_t = 50)]
    pub topics: usize,
    #[arg(long, default_value_t = 2)]
    pub topics_per_stream: usize,
    /// The server's --write-timeout, in seconds: readers stall for shorter and for longer.
    #[arg(long, default_value_t = 30.0)]
    pub stall_s: f64,
    /// A stream is cut once in so many seconds, on average,
    #[arg(long, default_value_t = 300.0)]
    pub cut_every: f64,
    /// and stalls once in so many.
    #[arg(long, default_value_t = 600.0)]
    pub stall_every: f64,
}

impl Common {
    pub fn target(&self) -> Result<Target> {
        let token = self.token.as_ref().map(fs::read_to_string).transpose()?;
        let token = token.map(|text| text.trim().to_owned());
        Ok(Target {
            dialect: self.dialect,
            address: self.address,
            token,
            attributes: self.attributes.clone(),
            filter: self.filter.clone(),
        })
    }

    pub fn process(&self) -> Option<Process> {
        self.pid.map(Process)
    }
}
