//! HTTP client of the subcommands.

/// Returns the URL, with `http://` if it has no scheme: the gateway's log names addresses alone.
pub(super) fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// Returns the settings of a client for requests to `url`.
pub(super) fn client(url: &str) -> reqwest::ClientBuilder {
    let client = reqwest::Client::builder();
    // A proxy in the environment cannot reach a gateway on this machine.
    let is_local = ["127.0.0.1", "localhost", "[::1]"].iter().any(|host| url.contains(host));
    if is_local { client.no_proxy() } else { client }
}
