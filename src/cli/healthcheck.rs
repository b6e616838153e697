//! `healthcheck`: for a container that has no shell and no curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, Command};

use crate::{
    cli::{Environment, block_on},
    problem::error_chain,
};

const TIMEOUT: Duration = Duration::from_secs(3);

/// Its arguments.
pub fn command() -> Command {
    Command::new("healthcheck").about("Exit with 0 when the gateway on this machine is ready").arg(
        Arg::new("url")
            .long("url")
            .value_name("URL")
            .help("What to ask, as in http://127.0.0.1:8080/readyz for dev [default: /readyz of the ops listener, \
             or of the public one if that is off, as the environment has them]"),
    )
}

/// `/readyz` of the gateway that has this environment too: of its ops listener, which never speaks
/// TLS, or of the public one if that is off.
///
/// # Errors
/// When neither would answer: the public one wants to be told by a proxy who asks.
pub fn url(environment: &Environment) -> Result<String, &'static str> {
    let given = |name: &str| environment.get(name).filter(|text| !text.is_empty());
    let address = |name: &str| given(name)?.parse::<SocketAddr>().ok();
    let ops_is_off = given("STREAM_EVENTS_OPS_LISTEN").is_some_and(|text| text == "off");
    if !ops_is_off {
        let ops = address("STREAM_EVENTS_OPS_LISTEN").unwrap_or(loopback(9090));
        return Ok(format!("http://{}/readyz", reachable(ops)));
    }
    if given("STREAM_EVENTS_PROXY_PROTOCOL").is_some_and(|text| text == "on") {
        return Err("with --proxy-protocol on it asks the ops listener, and that is off");
    }
    let port = given("PORT").and_then(|port| port.parse().ok()).unwrap_or(8080);
    let public = address("STREAM_EVENTS_LISTEN").unwrap_or(loopback(port));
    let scheme = if given("STREAM_EVENTS_TLS_CERT").is_some() { "https" } else { "http" };
    Ok(format!("{scheme}://{}/readyz", reachable(public)))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Who listens on all addresses is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => loopback(address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()))
        }
        _ => address,
    }
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
    // The certificate is for the name that clients use, and not for this address. What is asked is
    // whether the gateway is ready, which is no secret.
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .build();
    let response = client.map_err(|err| error_chain(&err))?.get(url).send().await;
    let response = response.map_err(|err| error_chain(&err))?;
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
            url(&pairs.collect()).unwrap_or_else(str::to_owned)
        };
        assert_eq!(url_of(&[]), "http://127.0.0.1:9090/readyz");
        let ops = [("STREAM_EVENTS_OPS_LISTEN", "0.0.0.0:9999"), ("PORT", "7777")];
        assert_eq!(url_of(&ops), "http://127.0.0.1:9999/readyz");
        let off = [("STREAM_EVENTS_OPS_LISTEN", "off"), ("PORT", "7777")];
        assert_eq!(url_of(&off), "http://127.0.0.1:7777/readyz");
        let tls = [off[0], ("STREAM_EVENTS_LISTEN", "[::]:8443"), ("STREAM_EVENTS_TLS_CERT", "x")];
        assert_eq!(url_of(&tls), "https://[::1]:8443/readyz");
        let proxied = [off[0], ("STREAM_EVENTS_PROXY_PROTOCOL", "on")];
        assert!(url_of(&proxied).contains("--proxy-protocol"));
        assert_eq!(url_of(&proxied[1..]), "http://127.0.0.1:9090/readyz");
        let one = [("STREAM_EVENTS_OPS_LISTEN", "10.0.0.7:9999")];
        assert_eq!(url_of(&one), "http://10.0.0.7:9999/readyz");
    }
}
