//! HTTP client of the subcommands.

/// Returns the URL, with `http://` if it has no scheme: the gateway's log names addresses alone.
pub(super) fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// Returns the settings of a client for requests to `url`.
pub(super) fn client(url: &str) -> reqwest::ClientBuilder {
    let client = reqwest::Client::builder();
    // A proxy in the environment cannot reach a gateway on this machine.
    let url = reqwest::Url::parse(&with_scheme(url)).ok();
    let host = url.as_ref().and_then(reqwest::Url::host_str);
    let is_local = host.is_some_and(|host| ["127.0.0.1", "localhost", "[::1]"].contains(&host));
    if is_local { client.no_proxy() } else { client }
}
