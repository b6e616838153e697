//! The load generator: see [`stream_events_bench::arguments`].

use std::process::ExitCode;

use clap::Parser as _;
use stream_events_bench::{arguments::Arguments, modes};

fn main() -> ExitCode {
    let outcome = match modes::run(&Arguments::parse()) {
        Ok(outcome) => outcome,
        Err(err) => {
            eprintln!("load: FAILED: {err}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", serde_json::Value::Object(outcome.report.clone()));
    if outcome.failed {
        eprintln!("load: FAILED: {} {}", outcome.report["violations"], outcome.report["named"]);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
