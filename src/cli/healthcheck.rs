//! `healthcheck`: asks a gateway whether it is ready. A container without a shell and curl uses it
//! as its probe.

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::ffi::OsStringExt as _,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::{
    cli::{self, Environment, block_on},
    config::{ConfigError, Endpoints, Mode},
    http::problem::error_chain,
};

/// Limit on the time of one request to the gateway.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the subcommand and its arguments.
pub fn command() -> Command {
    Command::new("healthcheck")
        .about("Exit with 0 if the gateway on this machine or in this container is ready")
        .long_about(
            "Exit with 0 if the gateway on this machine or in this container is ready.\n\n\
             It asks /readyz of the ops listener, or of the public listener if the ops listener is \
             off. It reads their addresses from the arguments of the gateway's process, if that is \
             process 1 (as in a container), and from the environment.",
        )
        .arg(Arg::new("url").long("url").value_name("URL").help(
            "Ask this URL, as in http://127.0.0.1:8080/readyz for dev. Without a path: \
                     /readyz",
        ))
        .arg(
            Arg::new("pid")
                .long("pid")
                .value_name("PID")
                .value_parser(value_parser!(u32))
                .conflicts_with("url")
                .help("Number of the gateway's process, whose arguments are read [default: 1]"),
        )
}

/// Returns the URL to ask: `--url`, or `/readyz` of the gateway that has this environment and the
/// arguments of process 1 (or of `--pid`). It is on the ops listener, which never uses TLS, or on
/// the public listener if the ops listener is off. `program` is the name that this process was
/// started by; the gateway has the same name.
///
/// # Errors
/// Returns an error if an address cannot be read, if process `--pid` is not a gateway, or if the
/// gateway would not answer: with `--proxy-protocol on`, the public listener answers proxies only.
pub fn url(
    given: &ArgMatches,
    program: Option<&OsString>,
    environment: &Environment,
) -> Result<String, ConfigError> {
    if let Some(url) = given.get_one::<String>("url") {
        return Ok(with_path(url));
    }
    let named = given.get_one::<u32>("pid").copied();
    let pid = named.unwrap_or(1);
    let gateway = arguments_of(pid, program);
    if let (Some(pid), None) = (named, &gateway) {
        let what = "is not a gateway, or its arguments cannot be read. Give the process that \
                    runs serve or dev, or --url";
        return Err(ConfigError(vec![format!("--pid: process {pid} {what}")]));
    }
    url_of(gateway.as_deref().unwrap_or_default(), environment)
}

/// Returns the URL to ask: `/readyz` if the URL has no path.
fn with_path(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    match rest.trim_end_matches('/') {
        host if host.contains('/') => format!("{scheme}://{rest}"),
        host => format!("{scheme}://{host}/readyz"),
    }
}

/// Returns the arguments of the gateway that is process `pid`, beginning with the gateway's name.
/// If an init process started the gateway (`docker run --init`), its own arguments come first in
/// the process' command line; they are skipped.
fn arguments_of(pid: u32, program: Option<&OsString>) -> Option<Vec<OsString>> {
    let name = Path::new(program?).file_name()?;
    let text = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let all = text.strip_suffix(b"\0")?.split(|byte| *byte == 0);
    let all = all.map(|argument| OsString::from_vec(argument.to_vec()));
    let is_other = |argument: &OsString| Path::new(argument).file_name() != Some(name);
    Some(all.skip_while(is_other).collect()).filter(|own: &Vec<_>| gateway(own).is_some())
}

/// Parses the arguments of a gateway. Returns its mode and flags, or `None` if they are not the
/// arguments of `dev` or `serve`.
fn gateway(arguments: &[impl AsRef<OsStr>]) -> Option<(Mode, ArgMatches)> {
    let arguments = arguments.iter().map(|argument| argument.as_ref().to_owned());
    let (name, given) = cli::command().try_get_matches_from(arguments).ok()?.remove_subcommand()?;
    match name.as_str() {
        "dev" => Some((Mode::Dev, given)),
        "serve" => Some((Mode::Serve, given)),
        _ => None,
    }
}

/// Returns the URL of a gateway's `/readyz`. Without arguments, it is a gateway of `serve` that has
/// all flags in the environment.
fn url_of(
    arguments: &[impl AsRef<OsStr>],
    environment: &Environment,
) -> Result<String, ConfigError> {
    let gateway = gateway(arguments);
    let mode = gateway.as_ref().map_or(Mode::Serve, |(mode, _)| *mode);
    let texts = cli::texts(gateway.as_ref().map(|(_, given)| given), environment);
    let endpoints = Endpoints::from_texts(mode, &texts, cli::platform_port(environment))?;
    if let Some(ops) = endpoints.ops_listen {
        return Ok(format!("http://{}/readyz", reachable(ops)));
    }
    if endpoints.proxy_protocol {
        let problem = "--ops-listen is off, and with --proxy-protocol on the public listener \
                       answers proxies only. Give the gateway --ops-listen 127.0.0.1:9090";
        return Err(ConfigError(vec![problem.to_owned()]));
    }
    let scheme = if endpoints.is_tls { "https" } else { "http" };
    Ok(format!("{scheme}://{}/readyz", reachable(endpoints.listen)))
}

/// Returns the IPv4 loopback address with this port.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Returns an address at which a listener on `address` can be reached: loopback for a listener on
/// all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => loopback(address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()))
        }
        _ => address,
    }
}

/// Asks the gateway once. Returns success if it is ready, and else prints the reason.
#[expect(clippy::print_stderr, reason = "the reason is the output of the command")]
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

/// Sends the request. Returns a text that says what is wrong.
async fn ask(url: &str) -> Result<(), String> {
    // The certificate is not checked: it is for the name that clients use, not for this address,
    // and the answer is no secret.
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
    fn url_of(arguments: &[&str], pairs: &[(&str, &str)]) -> String {
        let pairs = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        super::url_of(arguments, &pairs.collect()).unwrap_or_else(|bad| bad.to_string())
    }

    #[test]
    fn a_url_without_a_path_is_readyz() {
        for (url, asked) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080/readyz"),
            ("https://gateway/", "https://gateway/readyz"),
            ("http://[::1]:8080/healthz", "http://[::1]:8080/healthz"),
        ] {
            assert_eq!(super::with_path(url), asked);
        }
    }

    #[test]
    fn the_url_is_on_the_ops_listener_unless_that_is_off() {
        let url_of = |pairs: &[(&str, &str)]| url_of(&[], pairs);
        assert_eq!(url_of(&[]), "http://127.0.0.1:9090/readyz");
        let ops = [("STREAM_EVENTS_OPS_LISTEN", "0.0.0.0:9999"), ("PORT", "7777")];
        assert_eq!(url_of(&ops), "http://127.0.0.1:9999/readyz");
        let off = [("STREAM_EVENTS_OPS_LISTEN", "off"), ("PORT", "7777")];
        assert_eq!(url_of(&off), "http://127.0.0.1:7777/readyz");
        let tls = [
            off[0],
            ("STREAM_EVENTS_LISTEN", "[::]:8443"),
            ("STREAM_EVENTS_TLS_CERT", "x"),
            ("STREAM_EVENTS_TLS_KEY", "x"),
        ];
        assert_eq!(url_of(&tls), "https://[::1]:8443/readyz");
        let proxied = [off[0], ("STREAM_EVENTS_PROXY_PROTOCOL", "on")];
        assert!(url_of(&proxied).contains("--proxy-protocol"));
        assert_eq!(url_of(&proxied[1..]), "http://127.0.0.1:9090/readyz");
        let one = [("STREAM_EVENTS_OPS_LISTEN", "10.0.0.7:9999")];
        assert_eq!(url_of(&one), "http://10.0.0.7:9999/readyz");
        assert_eq!(url_of(&[("STREAM_EVENTS_OPS_LISTEN", "9999")]), "http://127.0.0.1:9999/readyz");
        let bad = url_of(&[("STREAM_EVENTS_OPS_LISTEN", "nowhere")]);
        assert!(bad.starts_with("--ops-listen: \"nowhere\""), "{bad}");
    }

    #[test]
    fn the_gateways_arguments_win_over_the_environment() {
        let environment = [("STREAM_EVENTS_OPS_LISTEN", "0.0.0.0:9999")];
        let serve = ["stream-events", "serve", "--ops-listen", "0.0.0.0:9099"];
        assert_eq!(url_of(&serve, &environment), "http://127.0.0.1:9099/readyz");
        assert_eq!(url_of(&serve[..2], &environment), "http://127.0.0.1:9999/readyz");
        assert_eq!(url_of(&["stream-events", "dev"], &[]), "http://127.0.0.1:8080/readyz");
        let port = ["stream-events", "dev", "--port", "3000"];
        assert_eq!(url_of(&port, &[]), "http://127.0.0.1:3000/readyz");
        for other in [&["nginx", "-g", "daemon off;"][..], &["stream-events", "healthcheck"]] {
            assert_eq!(url_of(other, &environment), "http://127.0.0.1:9999/readyz");
        }
    }
}
