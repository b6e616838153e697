//! `check`: finds what is wrong with the configuration of a gateway, without starting it, or with a
//! gateway that runs behind its proxies.

mod compression;
mod configuration;
mod finding;
mod gateway;
mod http2;
mod preflight;
mod probe;
mod push;
mod resume;
pub mod settings;
mod stream;
mod watch;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, Command, error::ErrorKind, value_parser};
use reqwest::Url;

use crate::{
    cli::{
        self, Environment, block_on,
        check::{configuration::Configuration, finding::Report, probe::Target},
        client::with_scheme,
    },
    config::{Mode, TIME_FORM, parse_time},
};

/// Arguments of `check`: the subject, and the form of the output.
#[derive(Debug)]
pub struct Check {
    subject: Subject,
    is_json: bool,
}

/// Subject of the checks.
#[derive(Debug)]
enum Subject {
    /// Configuration of a gateway that need not run.
    Configuration(Box<Configuration>),
    /// Gateway that runs.
    Gateway(Target),
}

/// Exit code for arguments that cannot be parsed. (1 says that a check found a problem.)
pub(super) const EXIT_USAGE: u8 = 2;

/// Longest time of `--watch`. By default, the gateway ends a stream sooner (`--stream-age-max`).
const WATCH_MAX: Duration = Duration::from_secs(2 * 3600);

/// Returns the subcommand. `flags` are the arguments of `serve`.
pub(super) fn command(flags: impl Iterator<Item = Arg>) -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).requires("url")
    };
    Command::new("check")
        .about("Find what is wrong with a configuration, or with a gateway behind its proxies")
        .long_about(LONG_ABOUT)
        .arg(Arg::new("url").value_name("URL").help(
            "Gateway to check, as its readers see it: https://HOST, or the URL of a stream with a \
             path and a query. Without a URL: check the configuration",
        ))
        .arg(option("watch", "TIME", "How long to wait for a cut of the stream [default: 70 s]"))
        .arg(option("origin", "ORIGIN", "Origin of your web page, as in https://app.example.com"))
        .arg(option("token", "JWT", "Token of a reader").conflicts_with("token-file"))
        .arg(
            option("token-file", "FILE", "File with the token of a reader")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print one JSON object: ok, and findings"),
        )
        .args(flags.map(|flag| flag.conflicts_with("url")))
}

/// Long form of the help.
const LONG_ABOUT: &str = "\
Find what is wrong with a configuration, or with a gateway behind its proxies.

Without a URL the command takes the flags and the environment of serve, starts nothing, and prints \
all problems. It reads the files of --tls-cert, --tls-key and --read-key-file, connects to the \
Redis server of --backplane (for at most 5 s), and tries whether the addresses of --listen and \
--ops-listen are free. It does not fetch key sets (--push-jwks-url, --read-jwks-url), and does not \
pull.

With a URL it is a client of a gateway. It checks whether a proxy holds the stream back, \
compresses it or cuts it within --watch, and whether a stream can be resumed, pages of --origin \
may read, clients get HTTP/2, and POST /push refuses a client without a token. It prints the \
settings that mend each problem. It publishes nothing.

Exit code: 0 if there is no problem, 1 if there is one, 2 for arguments that cannot be read.";

impl Check {
    /// Reads the arguments.
    pub(super) fn read(given: &ArgMatches, environment: &Environment) -> Result<Self, clap::Error> {
        let is_json = given.get_flag("json");
        let subject = if let Some(url) = given.get_one::<String>("url") {
            Subject::Gateway(target(given, url)?)
        } else {
            let (config, problems) = cli::read_config(Mode::Serve, given, environment);
            Subject::Configuration(Box::new(Configuration { config, problems }))
        };
        Ok(Self { subject, is_json })
    }
}

/// Reads the arguments about a gateway that runs.
fn target(given: &ArgMatches, url: &str) -> Result<Target, clap::Error> {
    let bad = |problem: String| cli::command().error(ErrorKind::ValueValidation, problem);
    let text = |name: &str| given.get_one::<String>(name).cloned();
    let url = Url::parse(&with_scheme(url)).ok();
    let url = url.filter(|url| ["http", "https"].contains(&url.scheme()));
    let url =
        url.ok_or_else(|| bad("URL: expected https://HOST or http://HOST:PORT".to_owned()))?;
    let watch = text("watch").unwrap_or_else(|| "70 s".to_owned());
    let seconds = Duration::from_secs(1)..=WATCH_MAX;
    let time = parse_time(&watch).filter(|time| seconds.contains(time));
    let time = time.ok_or_else(|| {
        bad(format!("--watch: {watch:?} is not {TIME_FORM}, or not from 1 s to 2 h"))
    })?;
    let token = match given.get_one::<PathBuf>("token-file") {
        None => text("token"),
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text =
                text.map_err(|err| bad(format!("--token-file: {}: {err}", path.display())))?;
            Some(text.trim().to_owned())
        }
    };
    Ok(Target::new(url, token, text("origin"), time))
}

/// Checks, and prints the findings. Returns the exit code.
#[expect(clippy::print_stderr, reason = "the reason why nothing can be checked")]
pub fn run(check: Check) -> ExitCode {
    let mut report = Report::new(check.is_json);
    let result = match check.subject {
        Subject::Configuration(configuration) => {
            block_on(configuration::check(*configuration, &mut report))
                .map_err(|err| err.to_string())
        }
        Subject::Gateway(target) => block_on(gateway::check(target, &mut report))
            .map_err(|err| err.to_string())
            .and_then(|checked| checked.map_err(|err| err.to_string())),
    };
    if let Err(problem) = result {
        eprintln!("{problem}");
        return ExitCode::FAILURE;
    }
    report.finish()
}
