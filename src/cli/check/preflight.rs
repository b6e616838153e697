//! Check of CORS: the preflight that a browser sends before a page of another origin may send
//! `Last-Event-ID` or a token, and the header of the answer that lets the page read.

use reqwest::{
    Method, Response, StatusCode,
    header::{self, HeaderMap},
};

use crate::cli::check::{
    finding::Finding,
    probe::{ANSWER_MAX, Probe, failure},
    settings::{CORS, ORIGIN},
};

const CHECK: &str = "preflight";

/// Origin that the check asks for without `--origin`. `dev` lets pages of this machine read, and
/// `serve` without `--cors-origin` lets all pages read.
const DEFAULT_ORIGIN: &str = "http://localhost";

/// Headers of a page that resumes with a token.
const HEADERS: [&str; 2] = ["authorization", "last-event-id"];

/// Sends the preflight of a page, and then asks for the head of the stream as the page does.
pub(super) async fn check(probe: &Probe) -> Finding {
    let given = probe.target.origin.as_deref();
    let origin = given.unwrap_or(DEFAULT_ORIGIN);
    let request = probe.request(Method::OPTIONS, None);
    let request = request.header(header::ORIGIN, origin);
    let request = request.header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET");
    let request = request.header(header::ACCESS_CONTROL_REQUEST_HEADERS, HEADERS.join(","));
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(err) => return Finding::not_checked(CHECK, failure(&err)),
    };
    let status = answer.status();
    let is_refusal = [StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN].contains(&status);
    if is_refusal && given.is_none() {
        let text = "pages of all origins may not read. Give --origin with the origin of your page";
        return Finding::not_checked(CHECK, text);
    }
    if is_refusal {
        let text = format!(
            "the preflight of a page of {origin} is refused ({status}). Expected 2xx: the gateway \
             must know the origin"
        );
        return Finding::problem(CHECK, text, ORIGIN);
    }
    if let Some(problem) = refusal(&answer, origin) {
        return Finding::problem(CHECK, problem, CORS);
    }
    let head = probe.read(Method::HEAD).timeout(ANSWER_MAX).header(header::ORIGIN, origin);
    if let Ok(head) = head.send().await
        && head.status() == StatusCode::OK
        && let Some(problem) = origin_problem(head.headers(), origin)
    {
        return Finding::problem(CHECK, format!("the answer to GET {problem}"), CORS);
    }
    let text = format!("pages of {origin} may read, and send Last-Event-ID and a token");
    Finding::good(CHECK, text)
}

/// Returns what keeps a browser from accepting the answer to a preflight.
fn refusal(answer: &Response, origin: &str) -> Option<String> {
    let status = answer.status();
    if !status.is_success() {
        return Some(format!(
            "the preflight (OPTIONS) is answered with {status}. Expected 2xx: the proxy must pass \
             OPTIONS on"
        ));
    }
    if let Some(problem) = origin_problem(answer.headers(), origin) {
        return Some(format!("the answer to the preflight {problem}"));
    }
    let allowed = answer.headers().get_all(header::ACCESS_CONTROL_ALLOW_HEADERS);
    let allowed: Vec<_> = allowed.iter().filter_map(|value| value.to_str().ok()).collect();
    let allowed = allowed.join(",").to_ascii_lowercase();
    let is_allowed = |name: &str| allowed.split(',').any(|word| word.trim() == name);
    let missing = HEADERS.into_iter().find(|name| !is_allowed(name))?;
    Some(format!(
        "the answer to the preflight does not allow the header {missing}. Expected it in \
         Access-Control-Allow-Headers, as the gateway sends it"
    ))
}

/// Returns what is wrong with `Access-Control-Allow-Origin`.
fn origin_problem(headers: &HeaderMap, origin: &str) -> Option<String> {
    let values = headers.get_all(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    let values: Vec<_> = values.iter().map(|value| value.to_str().unwrap_or_default()).collect();
    match values[..] {
        ["*"] => None,
        [value] if value == origin => None,
        [] => Some(format!("has no Access-Control-Allow-Origin. Expected {origin} or *")),
        [value] => Some(format!("allows {value:?} to read. Expected {origin} or *")),
        _ => Some(
            "has Access-Control-Allow-Origin twice, which browsers refuse: a proxy adds its own to \
             that of the gateway"
                .to_owned(),
        ),
    }
}
