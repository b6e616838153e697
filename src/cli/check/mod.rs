//! `check`: finds what is wrong with the configuration of a gateway, without starting it.

mod configuration;
mod finding;

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::cli::{
    self, Environment, block_on,
    check::{configuration::Configuration, finding::Report},
};

/// What to check, and how to print it.
#[derive(Debug)]
pub struct Check {
    configuration: Configuration,
    is_json: bool,
}

/// Exit code for arguments that cannot be parsed. (1 says that a check found a problem.)
pub(super) const EXIT_USAGE: u8 = 2;

/// Returns the subcommand. `flags` are the arguments of `serve`.
pub(super) fn command(flags: impl Iterator<Item = Arg>) -> Command {
    Command::new("check")
        .about("Find what is wrong with a configuration, without starting a gateway")
        .long_about(
            "Find what is wrong with a configuration, without starting a gateway.\n\n\
             The command takes the flags and the environment of serve, and prints all problems. It \
             reads the files of --tls-cert, --tls-key and --read-key-file, connects to the Redis \
             server of --backplane (for at most 5 s), and tries whether the addresses of --listen \
             and --ops-listen are free. It does not fetch key sets (--push-jwks-url, \
             --read-jwks-url), and does not pull.\n\n\
             Exit code: 0 if there is no problem, 1 if there is one, 2 for unknown arguments.",
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print one JSON object: ok, and findings"),
        )
        .args(flags)
}

impl Check {
    /// Reads the arguments.
    pub(super) fn read(given: &ArgMatches, environment: &Environment) -> Self {
        let (config, problems) = cli::read_config(crate::config::Mode::Serve, given, environment);
        let configuration = Configuration { config, problems };
        Self { configuration, is_json: given.get_flag("json") }
    }
}

/// Checks, and prints the findings. Returns the exit code.
#[expect(clippy::print_stderr, reason = "the reason why nothing can be checked")]
pub fn run(check: Check) -> ExitCode {
    let mut report = Report::new(check.is_json);
    if let Err(err) = block_on(configuration::check(check.configuration, &mut report)) {
        eprintln!("{err}");
        return ExitCode::FAILURE;
    }
    report.finish()
}
