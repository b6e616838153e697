//! Delivery: the way in which a reader receives events, and its choice with `Accept`.

use std::cmp::Reverse;

use actix_web::{
    HttpRequest,
    http::header::{self, Header as _},
};

/// Way in which a reader receives events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Server-sent events.
    EventStream,
    /// Newline-delimited JSON.
    JsonLines,
    /// One JSON answer with a page of events.
    Poll,
    /// Messages of a WebSocket.
    WebSocket,
}

/// Error of a request whose `Accept` excludes each [`Delivery`].
pub(super) struct NotAcceptableError;

impl Delivery {
    /// Returns the media type of the answer. A WebSocket has none.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::EventStream => "text/event-stream",
            Self::JsonLines => "application/x-ndjson",
            Self::Poll => "application/json",
            Self::WebSocket => "",
        }
    }

    /// Returns the range of all media types with the type of the answer.
    fn media_range(self) -> &'static str {
        match self {
            Self::EventStream => "text/*",
            Self::JsonLines | Self::Poll => "application/*",
            Self::WebSocket => "",
        }
    }
}

/// Returns the delivery that `Accept` prefers, and true if `Accept` names it. The quality of a
/// delivery is that of the most specific range that matches it (RFC 9110, section 12.5.1). Of
/// several with the same quality, the first named one is preferred, and if none is named,
/// server-sent events before the answer that ends.
///
/// # Errors
/// Fails if `Accept` excludes every delivery.
pub(super) fn accepted(request: &HttpRequest) -> Result<(Delivery, bool), NotAcceptableError> {
    const DEFAULT: (Delivery, bool) = (Delivery::EventStream, false);
    let mut fields = request.headers().get_all(header::ACCEPT);
    match (fields.next(), fields.next()) {
        (None, _) => return Ok(DEFAULT),
        // What `EventSource` sends needs no parser.
        (Some(only), None) if only == "text/event-stream" => {
            return Ok((Delivery::EventStream, true));
        }
        _ => {}
    }
    // A header that cannot be parsed excludes nothing.
    let accept = match header::Accept::parse(request) {
        Ok(accept) if !accept.is_empty() => accept,
        _ => return Ok(DEFAULT),
    };
    let item = |range| accept.iter().enumerate().find(|(_, it)| it.item.essence_str() == range);
    let rank = |delivery: Delivery| {
        let named = item(delivery.media_type());
        let (at, found) = named.or_else(|| item(delivery.media_range())).or_else(|| item("*/*"))?;
        let is_first = Reverse(named.map_or(usize::MAX, |_| at));
        let is_accepted = found.quality > header::Quality::ZERO;
        is_accepted.then_some(((found.quality, is_first), (delivery, named.is_some())))
    };
    // Of several with the same rank, `max_by_key` returns the last one.
    let all = [Delivery::JsonLines, Delivery::Poll, Delivery::EventStream];
    let best = all.into_iter().filter_map(rank).max_by_key(|(rank, _)| *rank);
    best.map(|(_, delivery)| delivery).ok_or(NotAcceptableError)
}
