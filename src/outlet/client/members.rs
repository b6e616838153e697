//! Members of a topic, for a command that asks for them, as `GET /presence/{topic}` does.

use super::{
    Client,
    refusal::{CloseCode, Refusal},
};
use crate::{
    auth::access,
    model::{
        control::EndReason,
        presence::Roster,
        topic::{ParseTopicError, Topic, TopicPattern},
    },
};

/// Largest number of members in an answer. An answer stays in memory until its client reads it.
const MEMBERS_MAX: usize = 100;

impl Client {
    /// Returns a topic that the client may read, and its members.
    ///
    /// # Errors
    /// Returns the refusal of the command.
    pub(in crate::outlet) async fn members(&self, topic: &str) -> Result<(Topic, Roster), Refusal> {
        self.count_request()?;
        let topic: Topic = topic.parse().map_err(|err: ParseTopicError| {
            Refusal::new(CloseCode::BadRequest, format!("topic: {err}"))
        })?;
        {
            let grant = self.grant()?;
            let asked = [TopicPattern::Exact(topic.clone())];
            access::choose(&asked, grant.as_ref(), &self.context.served)?;
        }
        let Ok(mut roster) = self.context.presence.who(&topic).await else {
            let text = "the log (Redis, --backplane) did not answer: try again later";
            return Err(Refusal::later(EndReason::Unready, text));
        };
        roster.more |= MEMBERS_MAX < roster.members.len();
        roster.members.truncate(MEMBERS_MAX);
        Ok((topic, roster))
    }
}
