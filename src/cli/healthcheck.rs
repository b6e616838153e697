//! `healthcheck`: for a container that has no shell and no curl.

use std::{process::ExitCode, time::Duration};

use clap::{Arg, Command};

use crate::cli::{Environment, block_on};

const TIMEOUT: Duration = Duration::from_secs(3);

/// Its arguments.
pub fn command() -> Command {
    Command::new("healthcheck").about("Exit with 0 when the gateway on this machine is ready").arg(
        Arg::new("url")
            .long("url")
            .value_name("URL")
            .help("What to ask [default: /readyz of the ops listener, as the environment has it]"),
    )
}

/// `/readyz` of the gateway that has this environment too: of its ops listener, which never speaks
/// TLS, or of the public one if that is off.
pub fn url(environment: &Environment) -> String {
    let port = |name: &str| {
        let text = environment.get(name).filter(|text| !text.is_empty())?;
        text.rsplit(':').next()?.parse::<u16>().ok()
    };
    let ops_is_off = environment.get("STREAM_EVENTS_OPS_LISTEN").is_some_and(|text| text == "off");
    let port = if ops_is_off {
        port("STREAM_EVENTS_LISTEN").or_else(|| port("PORT")).unwrap_or(8080)
    } else {
        port("STREAM_EVENTS_OPS_LISTEN").unwrap_or(9090)
    };
    format!("http://127.0.0.1:{port}/readyz")
}

/// Asks once.
#[expect(clippy::print_stderr, reason = "this is a command's answer")]
pub fn run(url: &str) -> ExitCode {
    match block_on(ask(url)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(problem)) => {
            eprintln!("{url}: {problem}");
            ExitCode::FAILURE
        }
        Err(err) => {
            eprintln!("{err}");
            ExitCode::FAILURE
        }
    }
}

async fn ask(url: &str) -> Result<(), String> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build();
    let response = client.map_err(|err| err.to_string())?.get(url).send().await;
    let response = response.map_err(|err| err.to_string())?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let text = response.text().await.unwrap_or_default();
    Err(format!("{status} {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_the_ops_listener_unless_that_is_off() {
        let url_of = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            url(&pairs.collect())
        };
        assert_eq!(url_of(&[]), "http://127.0.0.1:9090/readyz");
        let ops = [("STREAM_EVENTS_OPS_LISTEN", "0.0.0.0:9999"), ("PORT", "7777")];
        assert_eq!(url_of(&ops), "http://127.0.0.1:9999/readyz");
        let off = [("STREAM_EVENTS_OPS_LISTEN", "off"), ("PORT", "7777")];
        assert_eq!(url_of(&off), "http://127.0.0.1:7777/readyz");
    }
}
