//! Targets for cargo-fuzz: each takes an input from anywhere, and holds what the gateway makes of
//! it against an oracle. `tests/it/seeds.rs` has the same modules, and runs the seeds.

#[path = "../../tests/it/support/jwks.rs"]
pub mod jwks;

#[path = "../../tests/it/support/parser.rs"]
pub mod parser;

pub mod targets;
