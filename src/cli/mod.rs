//! Command line: reads the arguments and the environment, and runs the subcommands.

pub mod check;
mod client;
pub mod generate;
pub mod healthcheck;
pub mod publish;
pub mod serve;
pub mod tail;
pub mod token;

use std::{collections::HashMap, ffi::OsString, process::ExitCode};

use clap::{Arg, ArgAction, ArgMatches, builder::NonEmptyStringValueParser};

use crate::config::{Config, ConfigError, Flag, Mode, Texts, categories, flags};

/// Subcommand with its checked arguments.
#[derive(Debug)]
pub enum Command {
    /// `dev` or `serve`.
    Gateway(Box<Config>),
    /// `publish`.
    Publish(publish::Publish),
    /// `tail`.
    Tail(tail::Tail),
    /// `token make` or `token explain`.
    Token(token::Token),
    /// `generate`.
    Generate(generate::Generate),
    /// `check`.
    Check(Box<check::Check>),
    /// `healthcheck`, with the URL to ask.
    Healthcheck(String),
}

/// Reason why no subcommand runs.
#[derive(Debug)]
pub enum CliError {
    /// Request for the help or the version, or arguments that cannot be parsed.
    Clap(clap::Error),
    /// Arguments of `check` that cannot be parsed.
    CheckArguments(clap::Error),
    /// Errors of the configuration: all of them.
    Config(ConfigError),
}

/// Exit code for an error in the command line or the configuration: `EX_USAGE` of sysexits.h.
pub const EXIT_USAGE: u8 = 64;

/// Variables that other programs define: Cloud Run sets `PORT`, Pub/Sub's tools set
/// `PUBSUB_EMULATOR_HOST`, `NO_COLOR` turns colors off, and OpenTelemetry defines
/// [`OTLP_ENDPOINT`].
const FOREIGN_VARIABLES: [&str; 4] = ["PORT", "PUBSUB_EMULATOR_HOST", "NO_COLOR", OTLP_ENDPOINT];

/// Variable that names the collector of spans.
const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Environment variables that configure the gateway: name and value.
pub type Environment = HashMap<String, String>;

/// Reads the gateway's variables from the process' environment. No other code of the project reads
/// the environment. (The HTTP client reads its proxies from it, Google's library its
/// credentials, and OpenTelemetry's the resource and the headers of spans.)
pub fn environment() -> Environment {
    let ours = |name: &str| name.starts_with("STREAM_EVENTS_") || FOREIGN_VARIABLES.contains(&name);
    std::env::vars_os()
        // No flag accepts a value that is not UTF-8. The parser of the flag reports it.
        .filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        })
        .filter(|(name, _)| ours(name))
        .collect()
}

/// Reads the command line.
///
/// # Errors
/// See [`CliError`].
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment,
) -> Result<Command, CliError> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let is_check = arguments.get(1).is_some_and(|argument| argument == "check");
    let error = if is_check { CliError::CheckArguments } else { CliError::Clap };
    let matches = command().try_get_matches_from(&arguments).map_err(error)?;
    match matches.subcommand() {
        Some(("dev", given)) => gateway_command(Mode::Dev, given, environment),
        Some(("serve", given)) => gateway_command(Mode::Serve, given, environment),
        Some(("publish", given)) => {
            publish::Publish::read(given).map(Command::Publish).map_err(CliError::Clap)
        }
        Some(("tail", given)) => tail::Tail::read(given, no_color(environment))
            .map(Command::Tail)
            .map_err(CliError::Clap),
        Some(("token", given)) => {
            token::Token::read(given).map(Command::Token).map_err(CliError::Clap)
        }
        Some(("generate", given)) => Ok(Command::Generate(generate::Generate::read(given))),
        Some(("check", given)) => {
            let check = check::Check::read(given, environment).map_err(CliError::CheckArguments)?;
            Ok(Command::Check(Box::new(check)))
        }
        Some(("healthcheck", given)) => {
            let url = healthcheck::url(given, arguments.first(), environment);
            Ok(Command::Healthcheck(url.map_err(CliError::Config)?))
        }
        _ => Err(CliError::Clap(command().error(
            clap::error::ErrorKind::MissingSubcommand,
            "give a command: dev, serve, publish, tail, token, check, generate or healthcheck",
        ))),
    }
}

/// Collects the text of each flag: from the command line, or else from the environment.
fn texts(given: Option<&ArgMatches>, environment: &Environment) -> Texts {
    let mut texts = Texts::new();
    for flag in flags() {
        let given = |flag| given?.try_get_many::<String>(flag).ok().flatten();
        let from_flags = given(flag.name).map(|texts| texts.cloned().collect());
        let from_environment = || {
            let text = environment.get(&flag.env()).filter(|text| !text.is_empty())?;
            let many = || text.split(',').map(str::to_owned).collect();
            Some(if flag.is_repeatable { many() } else { vec![text.clone()] })
        };
        if let Some(given) = from_flags.or_else(from_environment) {
            texts.insert(flag.name, given);
        }
    }
    if let Some(host) = environment.get("PUBSUB_EMULATOR_HOST").filter(|host| !host.is_empty()) {
        texts.entry("pull-endpoint").or_insert_with(|| vec![format!("http://{host}")]);
    }
    // A build that exports no spans ignores the variable, which may be set for all containers of a
    // cluster.
    if let Some(url) = environment.get(OTLP_ENDPOINT).filter(|url| !url.is_empty())
        && cfg!(feature = "otel")
    {
        texts.entry("otlp-endpoint").or_insert_with(|| vec![url.clone()]);
    }
    texts
}

/// Returns the variable `PORT`, which Cloud Run sets.
fn platform_port(environment: &Environment) -> Option<&str> {
    environment.get("PORT").map(String::as_str).filter(|port| !port.is_empty())
}

/// Returns true if the variable `NO_COLOR` asks for no colors (<https://no-color.org>).
fn no_color(environment: &Environment) -> bool {
    environment.get("NO_COLOR").is_some_and(|text| !text.is_empty())
}

/// Reads the configuration of a gateway. Refuses errors in it.
fn gateway_command(
    mode: Mode,
    given: &ArgMatches,
    environment: &Environment,
) -> Result<Command, CliError> {
    let (config, problems) = read_config(mode, given, environment);
    if problems.is_empty() {
        Ok(Command::Gateway(Box::new(config)))
    } else {
        Err(CliError::Config(ConfigError(problems)))
    }
}

/// Reads the configuration of a gateway. Returns it, with a default for each text that cannot be
/// read, and all errors. An unknown variable that begins with `STREAM_EVENTS_` is an error: it is a
/// misspelled flag.
fn read_config(mode: Mode, given: &ArgMatches, environment: &Environment) -> (Config, Vec<String>) {
    let texts = texts(Some(given), environment);
    let (config, mut problems) = Config::read(mode, &texts, platform_port(environment));
    let is_known = |name: &String| flags().any(|flag| flag.env() == *name);
    let ours = environment.keys().filter(|name| name.starts_with("STREAM_EVENTS_"));
    let mut unknown: Vec<_> = ours.filter(|name| !is_known(name)).collect();
    unknown.sort();
    problems.extend(unknown.into_iter().map(|name| {
        format!(
            "{name}: no flag has this variable. Correct or remove it. Flags and variables: \
             stream-events serve --help"
        )
    }));
    (config, problems)
}

/// Forms of values, for the end of the long help.
const FORMS: &str = "Times: 15 s, 10 min, or 15 for seconds. Sizes: 32 MiB, or a number of bytes. \
                     A flag wins over its environment variable. A flag that can be repeated takes \
                     commas in the environment.";

/// Returns the whole command line.
pub fn command() -> clap::Command {
    clap::Command::new("stream-events")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Streams messages of Google Cloud Pub/Sub to web clients")
        .after_help("To try it: stream-events dev. Then, in another terminal: curl -N localhost:8080/events")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(gateway(
            Mode::Dev,
            "dev",
            "Start a gateway to try it: on this machine only, without tokens, with a page at /",
        ))
        .subcommand(gateway(
            Mode::Serve,
            "serve",
            "Start a gateway for production. --push-auth and --read-auth are required",
        ))
        .subcommand(publish::command())
        .subcommand(tail::command())
        .subcommand(token::command())
        .subcommand(check::command(arguments(Mode::Serve)))
        .subcommand(generate::command())
        .subcommand(healthcheck::command())
}

/// Returns the subcommand that starts a gateway, with all flags. `-h` lists the main ones.
fn gateway(mode: Mode, name: &'static str, about: &'static str) -> clap::Command {
    clap::Command::new(name)
        .about(about)
        .after_help(format!("These are the main flags. All flags: stream-events {name} --help"))
        .after_long_help(FORMS)
        .args(arguments(mode))
}

/// Returns the arguments of a gateway: one for each flag.
fn arguments(mode: Mode) -> impl Iterator<Item = Arg> {
    categories().iter().flat_map(move |category| {
        let visible = category.flags.iter().filter(|flag| !flag.is_secret);
        visible.map(move |flag| argument(flag, mode).help_heading(category.title))
    })
}

/// Makes the argument of a flag. The short help has its first sentence and the default. The long
/// help has all sentences, the default and the variable.
fn argument(flag: &Flag, mode: Mode) -> Arg {
    let dev = if mode == Mode::Dev { flag.dev_default } else { None };
    let default = match dev.or(flag.default) {
        None => "required".to_owned(),
        Some("") => "none".to_owned(),
        Some(text) => format!("default: {text}"),
    };
    let first = flag.help.split_once(". ").map_or(flag.help, |(first, _)| first);
    Arg::new(flag.name)
        .long(flag.name)
        .value_name(flag.value_name)
        .help(format!("{first} [{default}]"))
        .long_help(format!("{}.\n[{default}] [env: {}]", flag.help, flag.env()))
        .hide_short_help(!flag.is_main)
        .value_parser(NonEmptyStringValueParser::new())
        .action(if flag.is_repeatable { ArgAction::Append } else { ArgAction::Set })
}

impl CliError {
    /// Prints the reason. Returns the exit code of the process.
    #[expect(clippy::print_stderr, reason = "the log does not exist yet")]
    pub fn report(self) -> ExitCode {
        match self {
            Self::Clap(err) => print_clap(&err, EXIT_USAGE),
            Self::CheckArguments(err) => print_clap(&err, check::EXIT_USAGE),
            Self::Config(problems) => {
                eprintln!("{problems}");
                ExitCode::from(EXIT_USAGE)
            }
        }
    }
}

/// Prints the help, the version or an error. Returns `code` for an error.
fn print_clap(err: &clap::Error, code: u8) -> ExitCode {
    // Printing fails only if the reader closed the pipe.
    err.print().ok();
    if err.exit_code() == 0 { ExitCode::SUCCESS } else { ExitCode::from(code) }
}

/// Runs a future on a runtime of this thread, for subcommands that make one request.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}
