//! The command line.

pub mod healthcheck;
pub mod publish;
pub mod serve;

use std::{collections::HashMap, ffi::OsString, process::ExitCode};

use clap::{Arg, ArgAction, ArgMatches, builder::NonEmptyStringValueParser};

use crate::config::{Config, ConfigError, FLAGS, Flag, Mode, Texts};

/// What to do.
#[derive(Debug)]
pub enum Command {
    Gateway(Box<Config>),
    Publish(publish::Publish),
    /// With the URL to ask.
    Healthcheck(String),
}

/// Why nothing is done.
#[derive(Debug)]
pub enum CliError {
    /// Help or version was asked for, or the arguments are not understood.
    Clap(clap::Error),
    /// Everything that is wrong with the configuration.
    Config(ConfigError),
}

/// `EX_USAGE` of sysexits.h: the command line or the configuration is wrong.
pub const EXIT_USAGE: u8 = 64;

/// The environment variables that configure the gateway.
pub type Environment = HashMap<String, String>;

/// The only look into the environment. Libraries have looks of their own: proxies of the HTTP
/// client.
pub fn environment() -> Environment {
    let ours = |name: &str| name.starts_with("STREAM_EVENTS_") || name == "PORT";
    std::env::vars_os()
        // A value that is not UTF-8 is no setting's, and says so when it is read.
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
    let matches = command().try_get_matches_from(&arguments).map_err(CliError::Clap)?;
    match matches.subcommand() {
        Some(("dev", given)) => gateway_command(Mode::Dev, given, environment),
        Some(("serve", given)) => gateway_command(Mode::Serve, given, environment),
        Some(("publish", given)) => {
            publish::Publish::read(given).map(Command::Publish).map_err(CliError::Clap)
        }
        Some(("healthcheck", given)) => {
            let url = healthcheck::url(given, arguments.first(), environment);
            Ok(Command::Healthcheck(url.map_err(CliError::Config)?))
        }
        _ => Err(CliError::Clap(command().error(
            clap::error::ErrorKind::MissingSubcommand,
            "give a command: dev, serve, publish or healthcheck",
        ))),
    }
}

/// Collects the text of each setting: from the flags, or else from the environment.
fn texts(given: Option<&ArgMatches>, environment: &Environment) -> Texts {
    let mut texts = Texts::new();
    for flag in FLAGS {
        let given = |flag| given?.try_get_many::<String>(flag).ok().flatten();
        let from_flags = given(flag.flag).map(|texts| texts.cloned().collect());
        let from_environment = || {
            let text = environment.get(&flag.env()).filter(|text| !text.is_empty())?;
            let many = || text.split(',').map(str::to_owned).collect();
            Some(if flag.many { many() } else { vec![text.clone()] })
        };
        if let Some(given) = from_flags.or_else(from_environment) {
            texts.insert(flag.flag, given);
        }
    }
    texts
}

/// `PORT`, which Cloud Run sets.
fn platform_port(environment: &Environment) -> Option<&str> {
    environment.get("PORT").map(String::as_str).filter(|port| !port.is_empty())
}

fn gateway_command(
    mode: Mode,
    given: &ArgMatches,
    environment: &Environment,
) -> Result<Command, CliError> {
    let texts = texts(Some(given), environment);
    let mut unknown: Vec<_> = environment
        .keys()
        .filter(|name| *name != "PORT" && !FLAGS.iter().any(|flag| flag.env() == **name))
        .map(|name| format!("{name}: this variable belongs to no flag. Remove it, or see stream-events serve --help"))
        .collect();
    unknown.sort();
    let config = Config::from_texts(mode, &texts, platform_port(environment));
    match config {
        Ok(config) if unknown.is_empty() => Ok(Command::Gateway(Box::new(config))),
        Ok(_) => Err(CliError::Config(ConfigError(unknown))),
        Err(ConfigError(problems)) => {
            Err(CliError::Config(ConfigError([problems, unknown].concat())))
        }
    }
}

/// How values are written.
const FORMS: &str = "Times: 15 s, 10 min, or 15 for seconds. Sizes: 32 MiB, or a number of bytes. \
                     A flag wins over its environment variable. A flag that can be repeated takes \
                     commas in the environment.";

/// The whole command line, for parsing and for the README's table.
pub fn command() -> clap::Command {
    let knobs = |mode| {
        let flags = FLAGS.iter().filter(|flag| !flag.secret);
        flags.map(move |flag| argument(flag, mode))
    };
    clap::Command::new("stream-events")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Receives Google Cloud Pub/Sub pushes and streams them as server-sent events")
        .after_help("To try it: stream-events dev. Then, in another terminal: curl -N localhost:8080/events")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            clap::Command::new("dev")
                .about("Start a gateway to try it: on this machine only, without tokens, with a page at /")
                .after_help(FORMS)
                .args(knobs(Mode::Dev)),
        )
        .subcommand(
            clap::Command::new("serve")
                .about("Start a gateway for production. --push-auth and --read-auth are required")
                .after_help(FORMS)
                .args(knobs(Mode::Serve)),
        )
        .subcommand(publish::command())
        .subcommand(healthcheck::command())
}

fn argument(flag: &Flag, mode: Mode) -> Arg {
    let dev = if mode == Mode::Dev { flag.dev } else { None };
    let default = match dev.or(flag.default) {
        None => "required".to_owned(),
        Some("") => "none".to_owned(),
        Some(text) => format!("default: {text}"),
    };
    let help = format!("{} [{default}] [env: {}]", flag.help, flag.env());
    Arg::new(flag.flag)
        .long(flag.flag)
        .value_name(flag.value)
        .help(help)
        .value_parser(NonEmptyStringValueParser::new())
        .action(if flag.many { ArgAction::Append } else { ArgAction::Set })
}

impl CliError {
    /// Says why, and with which code to exit.
    #[expect(clippy::print_stderr, reason = "there is no log without a configuration")]
    pub fn report(self) -> ExitCode {
        match self {
            Self::Clap(err) => {
                let asked_for = err.exit_code() == 0;
                // Only a closed pipe could fail here, and then nobody reads it.
                err.print().ok();
                if asked_for { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) }
            }
            Self::Config(problems) => {
                eprintln!("{problems}");
                ExitCode::from(EXIT_USAGE)
            }
        }
    }
}

/// A runtime for a command that makes a request or two.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}
