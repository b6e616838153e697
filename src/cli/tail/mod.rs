//! `tail`: prints the events of a gateway as they come, and resumes by itself after each cut.

pub mod event_stream;
mod follow;
mod print;

pub(super) use print::escape_controls;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Arg, ArgAction, ArgMatches, Command, error::ErrorKind, value_parser};
use reqwest::Url;

use crate::cli::{
    block_on,
    client::with_scheme,
    tail::{
        event_stream::StreamEvent,
        follow::{Follow, Next, Token},
        print::{FORMS, Form, Printer, notice},
    },
};

/// Stream to print, and how.
#[derive(Debug)]
pub struct Tail {
    /// URL of the stream, with its query.
    url: Url,
    /// Token of the reader.
    token: Option<Token>,
    /// Id to begin after. Empty: none.
    last_event_id: String,
    /// Number of events after which the command ends.
    count: Option<u64>,
    /// Form of the printed events.
    form: Form,
    /// Colors: `None` if the terminal decides.
    colors: Option<bool>,
}

/// Returns the subcommand and its arguments.
pub fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("tail")
        .about("Print the events of a gateway as they come")
        .after_help(
            "After a connection breaks, the command resumes after the last event. It prints gaps, \
             broken connections and the end of a stream to standard error. In a pipe, gaps are lines {\"stream-gap\":…} too.",
        )
        .arg(option("url", "URL", "URL of the gateway").default_value("http://127.0.0.1:8080"))
        .arg(
            option("topic", "NAME", "Topic to print, or a prefix as orders.*. Without it: all")
                .action(ArgAction::Append),
        )
        .arg(option("filter", "FILTER", "Only events whose attributes match: see docs/reading.md"))
        .arg(option("since", "TIME", "Begin with what arrived since then: 10m, or RFC 3339"))
        .arg(option("last-event-id", "ID", "Begin after the event with this id"))
        .arg(option("count", "N", "End after N events").value_parser(value_parser!(u64).range(1..)))
        .arg(
            option("format", "FORMAT", "Form. Default: text on a terminal, else message")
                .value_parser(FORMS.map(|(name, _)| name)),
        )
        .arg(
            option("color", "WHEN", "Colors. Default: on a terminal, unless NO_COLOR is set")
                .value_parser(["always", "never"]),
        )
        .arg(option("token", "JWT", "Token of the reader").conflicts_with("token-file"))
        .arg(
            option("token-file", "FILE", "File with the token, read again for each connection")
                .value_parser(value_parser!(PathBuf)),
        )
}

impl Tail {
    /// Reads the arguments. `no_color` is true if the environment asks for no colors
    /// (<https://no-color.org>).
    pub(super) fn read(given: &ArgMatches, no_color: bool) -> Result<Self, clap::Error> {
        let text = |name: &str| given.get_one::<String>(name).cloned();
        let form = text("format").and_then(|name| FORMS.into_iter().find(|(of, _)| *of == name));
        let is_terminal = io::stdout().is_terminal();
        let default = if is_terminal { Form::Text } else { Form::Message };
        let form = form.map_or(default, |(_, form)| form);
        let url = with_scheme(&text("url").unwrap_or_default());
        let mut url = Url::parse(&url).map_err(|err| {
            let problem = format!("--url: {url:?}: {err}. Expected http://HOST:PORT");
            command().error(ErrorKind::ValueValidation, problem)
        })?;
        if url.path() == "/" {
            url.set_path("/events");
        }
        for topic in given.get_many::<String>("topic").into_iter().flatten() {
            url.query_pairs_mut().append_pair("topic", topic);
        }
        for name in ["filter", "since"] {
            if let Some(text) = text(name) {
                url.query_pairs_mut().append_pair(name, &text);
            }
        }
        url.query_pairs_mut().append_pair("format", form.query());
        let file = given.get_one::<PathBuf>("token-file").cloned().map(Token::File);
        let always = text("color").map(|when| when == "always");
        Ok(Self {
            url,
            token: text("token").map(Token::Text).or(file),
            last_event_id: text("last-event-id").unwrap_or_default(),
            count: given.get_one("count").copied(),
            form,
            colors: always.or(no_color.then_some(false)),
        })
    }
}

/// Follows the stream, and prints its events. Returns when it has printed enough, or the reason why
/// it cannot go on.
#[expect(clippy::print_stderr, reason = "the notices are output of the command")]
pub fn run(tail: Tail) -> ExitCode {
    let is_terminal = io::stdout().is_terminal();
    let mut printer = Printer {
        out: io::stdout(),
        form: tail.form,
        is_colored: tail.colors.unwrap_or(is_terminal),
        is_terminal,
    };
    let (mut left, mut broken) = (tail.count, None);
    let receive = |event: StreamEvent| {
        let is_control = event.event.starts_with("stream-");
        if let Some(notice) = notice(&event).filter(|_| is_control) {
            eprintln!("{}", escape_controls(&notice));
        }
        let result = if is_control { printer.control(&event) } else { printer.event(&event) };
        if let Err(err) = result {
            broken = Some(err);
            return Next::Stop;
        }
        if !is_control {
            left = left.map(|left| left - 1);
        }
        if left == Some(0) { Next::Stop } else { Next::Continue }
    };
    let report = |problem: &str| eprintln!("{}", escape_controls(problem));
    let followed = match Follow::new(tail.url, tail.token, tail.last_event_id) {
        Ok(mut follow) => block_on(follow.run(receive, report)),
        Err(err) => Ok(Err(err.to_string())),
    };
    let problem = match (followed, broken) {
        // The reader of the output has what it wants, as in `stream-events tail | head`.
        (Ok(Ok(())), Some(err)) if err.kind() == io::ErrorKind::BrokenPipe => None,
        (Ok(Ok(())), Some(err)) => Some(format!("standard output: {err}")),
        (Ok(Ok(())), None) => None,
        (Ok(Err(problem)), _) => Some(problem),
        (Err(err), _) => Some(err.to_string()),
    };
    let Some(problem) = problem else { return ExitCode::SUCCESS };
    eprintln!("{}", escape_controls(&problem));
    ExitCode::FAILURE
}
