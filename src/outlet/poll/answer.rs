//! Answer to a poll: its head and its JSON.

use super::page::Page;
use crate::{
    model::event_id::EventId,
    outlet::{
        claimed_body::ClaimedBody,
        format::control::{GapData, json},
    },
};
use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::BoxBody,
    http::{
        StatusCode,
        header::{self, EntityTag, Header as _, IfNoneMatch},
    },
};

/// Creates the head of an answer.
///
/// An anonymous reader's browser may keep the answer, if it asks each time whether the answer still
/// holds. No shared cache may: a proxy before the gateway may decide who reads. The answer to a
/// token is not stored at all, since it may be read for no longer than the token is valid.
pub(in crate::outlet) fn head(is_anonymous: bool) -> HttpResponseBuilder {
    let (cache_control, vary) = if is_anonymous {
        ("private, no-cache", "Accept, Last-Event-ID")
    } else {
        ("private, no-store", "Accept, Authorization, Cookie, Last-Event-ID")
    };
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, cache_control))
        .insert_header((header::VARY, vary));
    response
}

impl Page {
    /// Answers with the page, or with 304 if an anonymous reader has it already.
    pub(in crate::outlet) fn answer(
        self,
        request: &HttpRequest,
        is_anonymous: bool,
    ) -> HttpResponse {
        let text = |id: Option<EventId>| id.map_or_else(String::new, |id| id.to_string());
        let next = text(self.next());
        let mut response = head(is_anonymous);
        // For an anonymous reader, the URL and the positions before and after the page determine
        // its events. Two tokens can grant different events between the same positions, so a page
        // that was read with a token has no tag.
        if is_anonymous {
            let from = text(self.from);
            let gap = self.gap.as_ref().map_or_else(String::new, |gap| format!(".{}", gap.upto));
            let more = if self.more { ".more" } else { "" };
            let tag = EntityTag::new_strong(format!("{from}.{next}{gap}{more}"));
            response.insert_header((header::ETAG, tag.to_string()));
            if has_already(request, &tag) {
                return response.status(StatusCode::NOT_MODIFIED).finish();
            }
        }
        let gap =
            self.gap.as_ref().map_or_else(|| "null".to_owned(), |gap| json(&GapData::of(gap)));
        let start = b"{\"events\":[".iter().copied();
        let rest = format!("],\"next\":\"{next}\",\"gap\":{gap},\"more\":{}}}", self.more);
        let mut body = self.events;
        body.reserve_exact(start.len() + rest.len());
        body.splice(..0, start);
        body.extend_from_slice(rest.as_bytes());
        response.body(BoxBody::new(ClaimedBody::new(body.into(), self.claim)))
    }
}

/// Returns true if the reader has the answer with this tag.
fn has_already(request: &HttpRequest, tag: &EntityTag) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => request.headers().contains_key(header::IF_NONE_MATCH),
        Ok(IfNoneMatch::Items(known)) => known.iter().any(|known| known.weak_eq(tag)),
        Err(_) => false,
    }
}
