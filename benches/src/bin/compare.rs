//! Runs servers beside each other: see [`stream_events_bench::compare`].

use std::process::ExitCode;

use clap::Parser as _;
use stream_events_bench::compare::{self, Arguments};

fn main() -> ExitCode {
    match compare::run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("compare: some runs FAILED");
            ExitCode::FAILURE
        }
        Err(err) => {
            eprintln!("compare: {err}");
            ExitCode::FAILURE
        }
    }
}
