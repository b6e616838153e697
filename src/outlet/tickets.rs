//! `POST /ticket` and `POST /renew`: what readers with tokens ask for beside streams.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use actix_web_lab::extract::Query;
use rand::RngExt as _;
use serde::Deserialize;
use serde_json::json;

use crate::{
    auth::grant::Grant,
    backplane::{KeepTicketError, Renewal, TICKET_MAX, TICKETS_PER_HOLDER_MAX, UnavailableError},
    http::problem::{come_back_later, problem, problem_with},
    outlet::sse::{deny, unready},
    stream::{Outlet, TOO_OFTEN, lease::Lease},
};

/// The leases of the streams that are open here, by the streams' names.
#[derive(Debug, Default)]
pub struct Leases {
    by_name: Mutex<HashMap<String, Weak<Lease>>>,
}

/// A stream's entry, for as long as it is open.
#[derive(Debug)]
pub struct Listed {
    leases: Arc<Leases>,
    name: String,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut by_name = self.leases.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.remove(&self.name);
    }
}

impl Leases {
    /// Lists a stream's lease.
    pub fn list(self: &Arc<Self>, name: &str, lease: &Arc<Lease>) -> Listed {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(name.to_owned(), Arc::downgrade(lease));
        Listed { leases: Arc::clone(self), name: name.to_owned() }
    }

    fn find(&self, name: &str) -> Option<Arc<Lease>> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.get(name)?.upgrade()
    }

    /// A renewal that came to another replica.
    pub fn renew(&self, renewal: &Renewal) {
        if let Some(lease) = self.find(&renewal.stream)
            && let Some(grant) = Grant::from_json(&renewal.grant)
            && lease.allows(&grant).is_ok()
        {
            lease.extend(grant.expires_ms);
        }
    }
}

/// The query of `POST /renew`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renew {
    stream: String,
}

/// `POST /ticket`: a token in the header buys a name that may be in a URL, once and soon.
pub async fn ticket(request: HttpRequest, outlet: web::Data<Outlet>) -> HttpResponse {
    let grant = match admitted(&request, &outlet).await {
        Ok(grant) => grant,
        Err(refusal) => return refusal,
    };
    if let Err(wait) = outlet.tickets.try_acquire(Some(grant.holder.clone())) {
        let text = "this subject, or this token without a subject (sub), asks for too many tickets \
                    (--tickets-per-subject)";
        return come_back_later(StatusCode::TOO_MANY_REQUESTS, text, wait);
    }
    let ticket = format!("{:032x}", rand::rng().random::<u128>());
    let holder = grant.holder.to_string();
    if let Err(not_kept) = outlet.backplane.keep_ticket(&ticket, &holder, grant.to_json()).await {
        return no_ticket(&outlet, not_kept);
    }
    HttpResponse::Ok()
        .insert_header(("Cache-Control", "no-store"))
        .json(json!({ "ticket": ticket, "expires_in": TICKET_MAX.as_secs() }))
}

fn no_ticket(outlet: &Outlet, not_kept: KeepTicketError) -> HttpResponse {
    let busy = StatusCode::SERVICE_UNAVAILABLE;
    match not_kept {
        KeepTicketError::TooManyOfHolder => {
            outlet.metrics.limit("tickets-per-subject").inc();
            let text = format!(
                "this subject, or this token without a subject (sub), has {TICKETS_PER_HOLDER_MAX} \
                 tickets that nobody has used yet: open streams with them, or wait until they expire"
            );
            come_back_later(StatusCode::TOO_MANY_REQUESTS, &text, TICKET_MAX)
        }
        KeepTicketError::TooMany => {
            let text = "too many tickets were given out that nobody has used yet: try again later";
            come_back_later(busy, text, TICKET_MAX)
        }
        KeepTicketError::Unavailable(UnavailableError) => {
            unready("the store of tickets (Redis, --backplane) did not answer: try again later")
        }
    }
}

/// `POST /renew?stream=NAME`: the stream goes on for as long as the token that comes with this.
/// That is confirmed in the stream, which may be on another replica.
pub async fn renew(request: HttpRequest, outlet: web::Data<Outlet>) -> HttpResponse {
    let grant = match admitted(&request, &outlet).await {
        Ok(grant) => grant,
        Err(refusal) => return refusal,
    };
    let Ok(Query(Renew { stream })) = Query::<Renew>::from_query(request.query_string()) else {
        let text = "stream: give the name that stream-open told, as in /renew?stream=9f2c…";
        return problem(StatusCode::BAD_REQUEST, text);
    };
    if let Some(lease) = outlet.leases.find(&stream) {
        if let Err(text) = lease.allows(&grant) {
            return problem(StatusCode::FORBIDDEN, text);
        }
        lease.extend(grant.expires_ms);
        return accepted();
    }
    if !outlet.hub.is_copy() {
        return problem(StatusCode::NOT_FOUND, "there is no such stream");
    }
    let renewal = Renewal { stream, grant: grant.to_json() };
    match outlet.backplane.renew(&renewal).await {
        Ok(()) => accepted(),
        Err(UnavailableError) => unready(
            "the log (Redis, --backplane) did not answer, so that the replica that has the stream \
             cannot be told: try again later",
        ),
    }
}

/// The answer to any other method.
pub async fn only_post() -> HttpResponse {
    let allow = (header::ALLOW, "POST, OPTIONS");
    problem_with(StatusCode::METHOD_NOT_ALLOWED, allow, "this is asked for with POST")
}

fn accepted() -> HttpResponse {
    HttpResponse::Accepted().finish()
}

async fn admitted(request: &HttpRequest, outlet: &Outlet) -> Result<Grant, HttpResponse> {
    if let Err(wait) = outlet.admit(request) {
        return Err(come_back_later(StatusCode::TOO_MANY_REQUESTS, TOO_OFTEN, wait));
    }
    match outlet.access.admit(request).await {
        Ok(Some(grant)) => Ok(grant),
        Ok(None) => {
            let text = "anyone may read here (--read-auth anonymous), so there is nothing to renew";
            Err(problem(StatusCode::NOT_FOUND, text))
        }
        Err(denied) => Err(deny(&denied)),
    }
}
