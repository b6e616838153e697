//! `token`: makes a token of a reader or publisher for development, or explains one.

mod explain;
mod make;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use std::{path::PathBuf, process::ExitCode};

use crate::cli::token::{explain::Explain, make::Make};

/// Subcommand with its arguments.
#[derive(Debug)]
pub enum Token {
    /// `token make`.
    Make(Make),
    /// `token explain`.
    Explain(Explain),
}

/// Returns the subcommand with its own subcommands.
pub fn command() -> Command {
    Command::new("token")
        .about("Make a token of a reader or publisher for development, or explain one")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(make::command())
        .subcommand(explain::command())
}

impl Token {
    /// Reads the arguments.
    pub(super) fn read(given: &ArgMatches) -> Result<Self, clap::Error> {
        match given.subcommand() {
            Some(("explain", given)) => Ok(Self::Explain(Explain::read(given))),
            Some((_, given)) => Make::read(given).map(Self::Make),
            None => Err(command().error(
                clap::error::ErrorKind::MissingSubcommand,
                "give a command: token make or token explain",
            )),
        }
    }
}

/// Makes or explains the token, and prints the result.
pub fn run(token: &Token) -> ExitCode {
    match token {
        Token::Make(make) => make.run(),
        Token::Explain(explain) => explain.run(),
    }
}

/// Returns an argument with a value.
fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// Returns an argument with a value that can be repeated.
fn many(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    option(name, value, help).action(ArgAction::Append)
}

/// Returns the argument that names the file of the key.
fn key_file(help: &'static str) -> Arg {
    option("read-key-file", "FILE", help).required(true).value_parser(value_parser!(PathBuf))
}

/// Returns the argument that names the claim for the topics to read.
fn topics_claim() -> Arg {
    let help = "Claim that lists the topics to read: the gateway's --read-topics-claim";
    option("read-topics-claim", "NAME", help).default_value("topics")
}

/// Returns the values of a repeated argument.
fn values(given: &ArgMatches, name: &str) -> Vec<String> {
    given.get_many::<String>(name).into_iter().flatten().cloned().collect()
}
