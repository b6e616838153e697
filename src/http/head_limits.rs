//! Limits of a request's head and of its query, for all requests but pushes.

use actix_http::RequestHead;
use actix_web::{HttpResponse, http::StatusCode};
use prometheus::IntCounter;

use crate::http::problem::problem;

/// Limits of a request's head and of its query, and the counters of refused requests.
#[derive(Debug, Clone)]
pub(crate) struct HeadLimits {
    /// Largest head, in bytes (`--head-bytes-max`): path, query, and names and values of headers.
    pub bytes: usize,
    /// Largest query, in bytes (`--query-bytes-max`).
    pub query_bytes: usize,
    /// Number of requests that were refused because of their head.
    pub bytes_met: IntCounter,
    /// Number of requests that were refused because of their query.
    pub query_met: IntCounter,
}

impl HeadLimits {
    /// Returns the answer to a request whose query (414) or head (431) is too large, and counts it.
    /// Returns `None` if both are within their limits.
    pub(crate) fn refusal(&self, request: &RequestHead) -> Option<HttpResponse> {
        let query = request.uri.query().unwrap_or_default().len();
        if self.query_bytes < query {
            self.query_met.inc();
            let max = self.query_bytes;
            let text = format!("the query has {query} bytes; the limit is {max}");
            return Some(problem(StatusCode::URI_TOO_LONG, text));
        }
        let fields =
            request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
        let bytes = request.uri.path().len() + query + fields.sum::<usize>();
        if self.bytes < bytes {
            self.bytes_met.inc();
            let max = self.bytes;
            let text = format!("the head of the request has {bytes} bytes; the limit is {max}");
            return Some(problem(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text));
        }
        None
    }
}
