//! Check of `POST /push`: a client without a token must be refused, or anyone can publish.

use reqwest::{Method, StatusCode, header};

use crate::cli::check::{
    finding::Finding,
    probe::{Probe, failure},
    settings::PUSH,
};

const CHECK: &str = "push";

/// Pushes a body that is no message, without a token. No gateway stores it.
pub(super) async fn check(probe: &Probe) -> Finding {
    let request = probe.request(Method::POST, Some("push"));
    let request = request.header(header::CONTENT_TYPE, "application/json").body("{}");
    let status = match request.send().await {
        Ok(response) => response.status(),
        Err(err) => return Finding::not_checked(CHECK, failure(&err)),
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Finding::good(CHECK, format!("POST /push without a token is refused ({status})"))
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Finding::good(CHECK, format!("nothing accepts POST /push here ({status})"))
        }
        // The gateway's answers to a push that it read.
        StatusCode::NO_CONTENT | StatusCode::BAD_REQUEST => {
            let text = format!(
                "POST /push without a token was read ({status}): anyone who can connect can \
                 publish. Expected 401, 403 or 404"
            );
            Finding::problem(CHECK, text, PUSH)
        }
        _ => {
            let text = format!("POST /push without a token was answered with {status}");
            Finding::not_checked(CHECK, text)
        }
    }
}
