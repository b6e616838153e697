//! Client of a connection with commands, which WebSockets and sessions of gRPC share: its token,
//! the streams that it opens, refusals, and the timer of a connection without streams.

mod members;
pub(super) mod refusal;
pub(super) mod timer;

use std::{
    cell::{Ref, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_web::web;

use self::refusal::{CloseCode, Refusal};
use crate::{
    auth::grant::Grant,
    clock,
    inlet::publish::PublishEndpoint,
    model::encode::Format,
    outlet::events::Worker,
    stream::{
        StreamContext, TOO_OFTEN,
        lease::Lease,
        open::StreamReader,
        request::{EventFormat, HeaderId, Parameters, StreamRequest, StreamRequestError},
        session::Session,
    },
};

/// Client of one connection.
#[derive(Debug)]
pub(in crate::outlet) struct Client {
    pub(in crate::outlet) context: web::Data<StreamContext>,
    pub(in crate::outlet) worker: web::Data<Worker>,
    /// Inlet of the command `publish`.
    pub(in crate::outlet) publish: web::Data<PublishEndpoint>,
    /// Address that limits count. `None` if it is not known.
    pub(in crate::outlet) address: Option<IpAddr>,
    /// Grant of the client's newest token. `None` if readers need no token.
    pub(in crate::outlet) grant: RefCell<Option<Grant>>,
}

impl Client {
    /// Counts a request of the client.
    ///
    /// # Errors
    /// Refuses a client whose address sends too many requests.
    pub(in crate::outlet) fn count_request(&self) -> Result<(), Refusal> {
        let counted = self.context.requests.try_acquire(self.address);
        counted.map_err(|_| Refusal::too_often(TOO_OFTEN))
    }

    /// Returns the grant of the client's newest token. `None` if readers need no token.
    ///
    /// # Errors
    /// Refuses a client whose token has expired.
    pub(in crate::outlet) fn grant(&self) -> Result<Ref<'_, Option<Grant>>, Refusal> {
        let grant = self.grant.borrow();
        if grant.as_ref().is_some_and(|grant| grant.expires_ms <= clock::now_ms()) {
            let text = "the token has expired: send a new one with the command renew";
            return Err(Refusal::new(CloseCode::Unauthorized, text));
        }
        Ok(grant)
    }

    /// Opens a stream. `format_of` returns its format.
    ///
    /// # Errors
    /// Returns the refusal of the stream.
    pub(in crate::outlet) fn open(
        &self,
        parameters: Parameters,
        id_of_header: HeaderId,
        format_of: fn(EventFormat) -> Format,
    ) -> Result<Session, Refusal> {
        let context = &self.context;
        let (now_ms, topics_max) = (clock::now_ms(), context.topics_per_stream);
        let filters = &mut self.worker.filters.borrow_mut();
        let asked = StreamRequest::of_socket(parameters, id_of_header, now_ms, topics_max, filters);
        let asked = asked.map_err(|err| self.malformed(&err))?;
        let grant = self.grant.borrow();
        let reader = StreamReader { address: self.address, grant: grant.as_ref() };
        let topics = reader.topics(context, &asked)?;
        let format = format_of(asked.format);
        let opened = reader.open(context, &self.worker.shard, &asked, topics, format);
        opened.map_err(|err| self.counted(err.into()))
    }

    /// Verifies a token with which the connection is to go on.
    ///
    /// # Errors
    /// Refuses a token that is not valid, and a client that needs none.
    pub(in crate::outlet) async fn verify(&self, token: &str) -> Result<Grant, Refusal> {
        self.count_request()?;
        self.context.access.verify(token).await?.ok_or_else(|| {
            let text = "anyone may read here (--read-auth anonymous), so there is nothing to renew";
            Refusal::new(CloseCode::NotFound, text)
        })
    }

    /// Lets the connection and the `leases` of its streams go on with another grant. Returns the
    /// time until that expires.
    ///
    /// # Errors
    /// Refuses a grant of another subject, and one that lacks what the one before granted.
    pub(in crate::outlet) fn renew<'a>(
        &self,
        grant: Grant,
        leases: impl Iterator<Item = &'a Arc<Lease>> + Clone,
    ) -> Result<Duration, Refusal> {
        let refused = |text: &str| Refusal::new(CloseCode::Forbidden, text);
        let mut current = self.grant.borrow_mut();
        if grant.subject.is_none() || current.as_ref().is_none_or(|it| it.subject != grant.subject)
        {
            return Err(refused(
                "the token is not of the subject (sub) that opened the connection",
            ));
        }
        let publish = current.iter().flat_map(|current| current.publish.iter());
        if !publish.into_iter().all(|topic| grant.publish.contains(topic)) {
            return Err(refused(
                "the token does not grant publishing to all topics of the one before",
            ));
        }
        leases.clone().try_for_each(|lease| lease.allows(&grant)).map_err(refused)?;
        leases.for_each(|lease| lease.extend(grant.expires_ms));
        let left = Duration::from_millis(grant.expires_ms.saturating_sub(clock::now_ms()));
        *current = Some(grant);
        Ok(left)
    }

    /// Returns the refusal of a malformed request.
    pub(in crate::outlet) fn malformed(&self, err: &StreamRequestError) -> Refusal {
        self.context.count_malformed(err);
        Refusal::new(CloseCode::BadRequest, err.to_string())
    }

    /// Counts a refused stream.
    pub(in crate::outlet) fn counted(&self, refusal: Refusal) -> Refusal {
        self.context.metrics.streams_refused.with_label_values(&[refusal.reason]).inc();
        refusal
    }
}

/// Shared handle to a client.
pub(in crate::outlet) type SharedClient = Rc<Client>;
