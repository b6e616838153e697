//! `GET /page/overview`: answers with the topics and their counts, and the number of streams of
//! each outlet.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde::Serialize;

use crate::{
    auth::access,
    clock,
    http::problem::come_back_later,
    hub::TopicCounts,
    outlet::{
        claimed_body::json_answer,
        format::control::json,
        refusal::{deny, deny_topic},
    },
    stream::{StreamContext, TOO_OFTEN},
};

/// Largest number of topics in an answer.
const TOPICS_MAX: usize = 50;

/// Settings of the page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageSettings {
    /// True if the page has a form to publish with.
    pub can_publish: bool,
}

/// Body of the answer, as JSON.
#[derive(Debug, Serialize)]
struct Overview {
    /// Time of the gateway in Unix milliseconds.
    time_ms: u64,
    /// Topics that the reader may read and that have had an event, in order of their names. At most
    /// [`TOPICS_MAX`].
    topics: Vec<TopicData>,
    /// Number of other topics, whose newest events are older.
    topics_more: usize,
    /// Number of all readers' streams by outlet. An outlet without streams is left out.
    streams: BTreeMap<&'static str, i64>,
    /// True if the page has a form to publish with.
    can_publish: bool,
}

/// Topic, and the number of its events.
#[derive(Debug, Serialize)]
struct TopicData {
    topic: String,
    /// Number of events that were stored. `None` for a token with a filter, which hides how many
    /// events there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<u64>,
}

/// Answers with the overview, of the topics that the reader may read.
pub(crate) async fn overview(
    request: HttpRequest,
    context: web::Data<StreamContext>,
    settings: web::Data<PageSettings>,
) -> HttpResponse {
    if let Err(wait) = context.admit(&request) {
        return come_back_later(StatusCode::TOO_MANY_REQUESTS, TOO_OFTEN, wait);
    }
    let grant = match context.access.admit(&request).await {
        Ok(grant) => grant,
        Err(denied) => return deny(&denied),
    };
    let shown = match access::choose(&[], grant.as_ref(), &context.served) {
        Ok(shown) => shown,
        Err(denied) => return deny_topic(&denied),
    };
    let (mut counts, topics_more) = context.hub.topic_counts(&shown, TOPICS_MAX);
    counts.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
    let has_filter = grant.is_some_and(|grant| grant.filter.is_some());
    let data = |TopicCounts { topic, stored, .. }| TopicData {
        topic: topic.to_string(),
        stored: (!has_filter).then_some(stored),
    };
    let overview = Overview {
        time_ms: clock::now_ms(),
        topics: counts.into_iter().map(data).collect(),
        topics_more,
        streams: context.metrics.open_streams_by_outlet(),
        can_publish: settings.can_publish,
    };
    json_answer(&context, json(&overview))
}
