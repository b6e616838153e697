//! Tests of `src/cli`: the program and its subcommands.

mod check_configuration;
mod commands;
mod tail;
mod token;
