//! `GET /presence/{topic}`: answers with the members of a topic.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};

use crate::{
    auth::access,
    http::problem::{come_back_later, problem},
    model::topic::{Topic, TopicPattern},
    outlet::{
        claimed_body::json_answer,
        format::control::{PresenceData, json},
        refusal::{deny, deny_topic, unready},
    },
    stream::{StreamContext, TOO_OFTEN},
};

/// Answers with the members of a topic to readers of the topic.
pub(crate) async fn presence(
    request: HttpRequest,
    topic: web::Path<String>,
    context: web::Data<StreamContext>,
) -> HttpResponse {
    if let Err(wait) = context.admit(&request) {
        return come_back_later(StatusCode::TOO_MANY_REQUESTS, TOO_OFTEN, wait);
    }
    let topic: Topic = match topic.parse() {
        Ok(topic) => topic,
        Err(err) => return problem(StatusCode::BAD_REQUEST, format!("topic: {err}")),
    };
    let grant = match context.access.admit(&request).await {
        Ok(grant) => grant,
        Err(denied) => return deny(&denied),
    };
    let asked = [TopicPattern::Exact(topic.clone())];
    if let Err(denied) = access::choose(&asked, grant.as_ref(), &context.served) {
        return deny_topic(&denied);
    }
    let Ok(roster) = context.presence.who(&topic).await else {
        return unready(
            "the log (Redis, --backplane) did not answer, so that the members of this topic are \
             not known: try again later",
        );
    };
    json_answer(&context, json(&PresenceData::of_roster(&topic, &roster)))
}
