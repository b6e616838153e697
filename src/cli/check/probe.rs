//! Client of a gateway that is checked.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Url, header, redirect::Policy};

use crate::{cli::client::client, http::problem::error_chain};

/// Gateway that is checked, and the settings of the checks.
#[derive(Debug)]
pub(super) struct Target {
    /// URL of the stream, with its query.
    pub(super) stream: Url,
    /// Token of a reader.
    token: Option<String>,
    /// Origin of the page that reads.
    pub(super) origin: Option<String>,
    /// Time to wait for a cut.
    pub(super) watch: Duration,
}

/// Client, and the gateway that is checked.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) target: Target,
    /// Client that follows redirects, as `EventSource` does.
    readers: Client,
    /// Client that follows no redirect: a browser refuses a redirected preflight, and Pub/Sub a
    /// redirected push.
    strict: Client,
}

/// Limit on the time until the head of an answer comes.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Limit on the time until a connection is open. It is shorter than [`ANSWER_MAX`], so that an
/// address that cannot be reached is not taken for a gateway that does not answer.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Filter that hides the events of the checked topics, so that a check reads control messages only.
const FILTER: &str = "attributes:stream_events_check";

impl Target {
    /// Creates a target. If the path of the URL does not end with `/events`, adds `/events`. If the
    /// query has no filter, adds [`FILTER`].
    pub(super) fn new(
        mut stream: Url,
        token: Option<String>,
        origin: Option<String>,
        watch: Duration,
    ) -> Self {
        let path = stream.path().trim_end_matches('/').to_owned();
        if !path.ends_with("/events") {
            stream.set_path(&format!("{path}/events"));
        }
        stream.set_fragment(None);
        if !stream.query_pairs().any(|(name, _)| name == "filter") {
            stream.query_pairs_mut().append_pair("filter", FILTER);
        }
        Self { stream, token, origin, watch }
    }

    /// Uses the URL that a redirect led to for all further requests. Ignores the URL of another
    /// host, and one that changes from https to http: the token is not sent there.
    pub(super) fn follow(&mut self, url: &Url) {
        let is_as_safe = url.scheme() == "https" || url.scheme() == self.stream.scheme();
        if url.host() == self.stream.host() && is_as_safe {
            url.clone_into(&mut self.stream);
        }
    }

    /// Returns the URL without what may be secret: a password, and a query with a ticket.
    pub(super) fn shown(&self) -> String {
        let mut shown = self.stream.clone();
        shown.set_query(None);
        shown.set_username("").ok();
        shown.set_password(None).ok();
        shown.to_string()
    }
}

impl Probe {
    /// Creates the client. Nothing is sent yet.
    pub(super) fn new(target: Target) -> reqwest::Result<Self> {
        let url = target.stream.as_str();
        let builder = || client(url).connect_timeout(CONNECT_MAX);
        let readers = builder().redirect(Policy::limited(5)).build()?;
        let strict = builder().redirect(Policy::none()).build()?;
        Ok(Self { target, readers, strict })
    }

    /// Makes a request for the stream.
    pub(super) fn read(&self, method: Method) -> RequestBuilder {
        let request = self.readers.request(method, self.target.stream.clone());
        let request = request.header(header::ACCEPT, "text/event-stream");
        let request = request.header(header::CACHE_CONTROL, "no-store");
        match &self.target.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Returns true if a reader's token is sent.
    pub(super) fn has_token(&self) -> bool {
        self.target.token.is_some()
    }

    /// Makes a request without a token to the stream, or to `sibling` beside it. It follows no
    /// redirect.
    pub(super) fn request(&self, method: Method, sibling: Option<&str>) -> RequestBuilder {
        let mut url = self.target.stream.clone();
        if let Some(name) = sibling {
            let base = url.path().trim_end_matches("events").to_owned();
            url.set_path(&format!("{base}{name}"));
            url.set_query(None);
        }
        self.strict.request(method, url).timeout(ANSWER_MAX)
    }
}

/// Returns a text about a request that failed.
pub(super) fn failure(err: &reqwest::Error) -> String {
    // The URL may hold a ticket.
    let text = error_chain(err);
    match err.url() {
        Some(url) => text.replace(url.as_str(), "the URL"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_to_another_host_or_to_clear_text_is_not_followed_with_a_token() {
        for (from, to, is_followed) in [
            ("http://a.example/events", "https://a.example/events?x=1", true),
            ("https://a.example/events", "https://a.example/live/events", true),
            ("https://a.example/events", "https://b.example/events", false),
            ("https://a.example/events", "http://a.example/events", false),
        ] {
            let (from, to): (Url, Url) = (from.parse().unwrap(), to.parse().unwrap());
            let mut target = Target::new(from, None, None, Duration::from_secs(1));
            target.follow(&to);
            assert_eq!(target.stream == to, is_followed, "{to}");
        }
    }

    #[test]
    fn a_url_is_that_of_a_gateway_or_of_a_stream() {
        for (given, stream) in [
            ("https://a.example", "https://a.example/events"),
            ("https://a.example/", "https://a.example/events"),
            ("https://a.example/live/", "https://a.example/live/events"),
            ("https://u:p@a.example/live/events?ticket=y", "https://a.example/live/events"),
        ] {
            let target = Target::new(given.parse().unwrap(), None, None, Duration::from_secs(1));
            assert_eq!(target.shown(), stream);
            assert!(target.stream.query().unwrap().contains("filter=attributes"), "{given}");
            let probe = Probe::new(target).unwrap();
            let push = probe.request(Method::POST, Some("push")).build().unwrap();
            assert_eq!(push.url().path(), probe.target.stream.path().replace("events", "push"));
        }
    }
}
