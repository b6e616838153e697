//! Tickets and renewals: `POST /ticket` and `POST /renew`.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use actix_web_lab::extract::Query;
use rand::RngExt as _;
use serde::Deserialize;
use serde_json::json;

use crate::{
    auth::{AuthError, access::Access, grant::Grant},
    backplane::{KeepTicketError, Renewal, TICKET_MAX, TICKETS_PER_HOLDER_MAX, UnavailableError},
    clock,
    http::problem::{come_back_later, problem},
    outlet::refusal::{deny, unready},
    stream::{StreamContext, TOO_OFTEN},
};

/// Uses up a ticket and returns the grant that it was issued for.
///
/// # Errors
/// [`AuthError`] when the ticket is unknown, used or expired, when its token has expired, or when
/// the ticket store did not answer.
pub(super) async fn redeem(context: &StreamContext, ticket: &str) -> Result<Grant, AuthError> {
    if matches!(context.access, Access::Anonymous) {
        return Err(AuthError::InvalidTicket);
    }
    let kept = context.backplane.take_ticket(ticket).await;
    let kept = kept.map_err(|_| AuthError::TicketsUnavailable)?;
    let grant = kept.and_then(|kept| Grant::from_json(&kept)).ok_or(AuthError::InvalidTicket)?;
    if grant.expires_ms <= clock::now_ms() {
        return Err(AuthError::Invalid("it has expired"));
    }
    Ok(grant)
}

/// Query of `POST /renew`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renew {
    stream: String,
}

/// Issues a ticket (`POST /ticket`) for the token in the header: a name that may stand in a URL,
/// for one stream within 30 s.
pub(crate) async fn ticket(
    request: HttpRequest,
    context: web::Data<StreamContext>,
) -> HttpResponse {
    let grant = match admitted(&request, &context).await {
        Ok(grant) => grant,
        Err(refusal) => return refusal,
    };
    if let Err(wait) = context.tickets.try_acquire(Some(grant.holder.clone())) {
        let text = "this subject, or this token without a subject (sub), asks for too many tickets \
                    (--tickets-per-subject)";
        return come_back_later(StatusCode::TOO_MANY_REQUESTS, text, wait);
    }
    let ticket = format!("{:032x}", rand::rng().random::<u128>());
    let holder = grant.holder.to_string();
    if let Err(not_kept) = context.backplane.keep_ticket(&ticket, &holder, grant.to_json()).await {
        return no_ticket(&context, not_kept);
    }
    HttpResponse::Ok()
        .insert_header(("Cache-Control", "no-store"))
        .json(json!({ "ticket": ticket, "expires_in": TICKET_MAX.as_secs() }))
}

fn no_ticket(context: &StreamContext, not_kept: KeepTicketError) -> HttpResponse {
    let busy = StatusCode::SERVICE_UNAVAILABLE;
    match not_kept {
        KeepTicketError::TooManyOfHolder => {
            context.metrics.limit("tickets-per-subject").inc();
            let text = format!(
                "this subject, or this token without a subject (sub), has {TICKETS_PER_HOLDER_MAX} \
                 unused tickets: open streams with them, or wait until they expire"
            );
            come_back_later(StatusCode::TOO_MANY_REQUESTS, &text, TICKET_MAX)
        }
        KeepTicketError::TooMany => {
            let text = "this gateway has too many unused tickets: try again later";
            come_back_later(busy, text, TICKET_MAX)
        }
        KeepTicketError::Unavailable(UnavailableError) => {
            unready("the store of tickets (Redis, --backplane) did not answer: try again later")
        }
    }
}

/// Extends a stream (`POST /renew?stream=NAME`) for as long as the token of this request lasts. The
/// stream, which may be on another replica, confirms it with `stream-auth`.
pub(crate) async fn renew(request: HttpRequest, context: web::Data<StreamContext>) -> HttpResponse {
    let grant = match admitted(&request, &context).await {
        Ok(grant) => grant,
        Err(refusal) => return refusal,
    };
    let Ok(Query(Renew { stream })) = Query::<Renew>::from_query(request.query_string()) else {
        let text = "stream: give the name from the stream-open event, as in /renew?stream=9f2c…";
        return problem(StatusCode::BAD_REQUEST, text);
    };
    if let Some(lease) = context.leases.find(&stream) {
        if let Err(text) = lease.allows(&grant) {
            return problem(StatusCode::FORBIDDEN, text);
        }
        lease.extend(grant.expires_ms);
        return accepted();
    }
    if !context.hub.is_copy() {
        return problem(StatusCode::NOT_FOUND, "there is no such stream");
    }
    let renewal = Renewal { stream, grant: grant.to_json() };
    match context.backplane.renew(&renewal).await {
        Ok(()) => accepted(),
        Err(UnavailableError) => unready(
            "the log (Redis, --backplane) did not answer, so that the replica that has the stream \
             cannot be notified: try again later",
        ),
    }
}

fn accepted() -> HttpResponse {
    HttpResponse::Accepted().finish()
}

async fn admitted(request: &HttpRequest, context: &StreamContext) -> Result<Grant, HttpResponse> {
    if let Err(wait) = context.admit(request) {
        return Err(come_back_later(StatusCode::TOO_MANY_REQUESTS, TOO_OFTEN, wait));
    }
    match context.access.admit(request).await {
        Ok(Some(grant)) => Ok(grant),
        Ok(None) => {
            let text = "anyone may read here (--read-auth anonymous), so there is nothing to renew";
            Err(problem(StatusCode::NOT_FOUND, text))
        }
        Err(denied) => Err(deny(&denied)),
    }
}
