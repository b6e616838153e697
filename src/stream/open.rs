//! Opening of streams: checks the limits, counts the stream and subscribes.

use std::{net::IpAddr, rc::Rc};

use actix_web::web;
use tokio::time::Instant;

use crate::{
    auth::{
        access::{self, TopicDeniedError},
        grant::Grant,
    },
    hub::{GroupKey, Shard, SubscribeError, TopicSet},
    model::{encode::Format, filter::Filter},
    stream::{
        StreamContext, lease::Terms, limits::StreamLimitError, pending::PendingStream,
        presence::PresenceError, request::StreamRequest, session::Session,
    },
};

/// Reader that opens a stream.
#[derive(Debug)]
pub(crate) struct StreamReader<'a> {
    /// Address that limits count. `None` if it is not known.
    pub address: Option<IpAddr>,
    /// Grant of the reader's token. `None` if anyone may read.
    pub grant: Option<&'a Grant>,
}

/// Reason why a stream is not opened now. Its text is for the reader.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The gateway is shutting down.
    #[error("this gateway is shutting down")]
    Draining,
    /// The reader has too many streams.
    #[error(transparent)]
    TooMany(#[from] StreamLimitError),
    /// The reader cannot take part in the topics.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// The stream would exceed a limit of the hub.
    #[error(transparent)]
    Busy(#[from] SubscribeError),
}

impl StreamReader<'_> {
    /// Returns the topics of a stream.
    ///
    /// # Errors
    /// Returns the first topic that the reader may not have.
    pub(crate) fn topics(
        &self,
        context: &StreamContext,
        asked: &StreamRequest,
    ) -> Result<TopicSet, TopicDeniedError> {
        access::choose(&asked.topics, self.grant, &context.served)
    }

    /// Counts a stream of `topics` and opens it. The stream may first wait for the log.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(crate) fn open(
        &self,
        context: &web::Data<StreamContext>,
        shard: &Rc<Shard>,
        asked: &StreamRequest,
        topics: TopicSet,
        format: Format,
    ) -> Result<Session, OpenError> {
        if context.hub.draining().is_some() {
            return Err(OpenError::Draining);
        }
        let holder = self.grant.map(|grant| &grant.holder);
        let permit = context.limits.try_acquire(self.address, holder)?;
        let presence = asked.presence.as_deref();
        let presence = presence
            .map(|asked| asked.reserve(context.presence.rooms(), self.grant))
            .transpose()?;
        let now = Instant::now();
        let pending = PendingStream {
            context: context.clone(),
            shard: Rc::clone(shard),
            key: GroupKey { topics, filter: self.filter(asked), format },
            terms: self.grant.map(Terms::of),
            names: asked.topics.clone(),
            start: asked.start,
            fold: asked.fold.clone(),
            slow: asked.slow,
            presence,
            id: asked.id,
            permit,
            end_at: now + context.random_age(),
        };
        Ok(begin(context, pending, now)?)
    }

    /// Returns the filter of a stream: an event must match that of the request and that of the
    /// token.
    fn filter(&self, asked: &StreamRequest) -> Option<Filter> {
        match (self.grant.and_then(|grant| grant.filter.as_ref()), &asked.filter) {
            (Some(granted), Some(asked)) => Some(granted.and(asked)),
            (granted, asked) => granted.or(asked.as_ref()).cloned(),
        }
    }
}

/// Opens a stream at once, or lets it wait for the log.
///
/// # Errors
/// Returns the limit that the stream would exceed.
fn begin(
    context: &StreamContext,
    pending: PendingStream,
    now: Instant,
) -> Result<Session, SubscribeError> {
    if pending.is_settled() {
        return Session::open(pending, now);
    }
    let claim = context.reserve(&pending.key)?;
    let answer = pending.ask_log(claim);
    Ok(Session::wait_for_log(pending, answer, now))
}
