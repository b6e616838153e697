//! What can be measured.

mod churn;
mod fanout;
mod idle;
mod kernel;
mod replay;
mod soak;
mod stalled;

use serde_json::{Map, Value, json};

use crate::{
    Result,
    arguments::{Arguments, Mode},
    client::Client,
    report::object,
};

/// What a run found, and whether every stream got what it should.
#[derive(Debug)]
pub struct Outcome {
    pub report: Map<String, Value>,
    pub failed: bool,
}

/// Runs.
///
/// # Errors
/// When it could not go on. Events that were lost, doubled or out of order are no such error but in
/// the outcome.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let common = &arguments.common;
    let (found, client) = match &arguments.mode {
        Mode::Fanout(fanout) => fanout::run(common, fanout),
        Mode::Ingest(ingest) => fanout::ingest(common, ingest),
        Mode::Replay(replay) => replay::run(common, replay),
        Mode::Churn(churn) => churn::run(common, churn),
        Mode::Idle(idle) => idle::run(common, idle),
        Mode::Stalled(stalled) => stalled::run(common, stalled),
        Mode::Soak(soak) => return soak::run(common, soak),
    }?;
    let Client { shape, size, tally, publishers, .. } = &client;
    let mut report = object(json!({
        "streams": shape.streams,
        "topics": shape.topics,
        "topics_per_stream": shape.per_stream,
        "size": size,
        "publishers": publishers.len(),
        "violations": tally.violations,
        "named": tally.named,
    }));
    report.extend(found);
    Ok(Outcome { report, failed: 0 < tally.violations })
}
