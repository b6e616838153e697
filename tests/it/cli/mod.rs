//! Tests of `src/cli`: the program and its subcommands.

mod check_configuration;
mod check_gateway;
mod check_stream;
mod commands;
mod tail;
mod token;
