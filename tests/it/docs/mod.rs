//! Tests of the documentation: README, manifests and examples match the program.

mod api;
mod chat;
mod check;
mod examples;
mod metrics;
mod protocol;
mod readme;
mod toolchain;

use std::{fs, path::Path};

/// Reads a file of the project.
fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}
