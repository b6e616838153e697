//! Tests of `src/cli`: the program and its subcommands.

mod commands;
mod tail;
mod token;
