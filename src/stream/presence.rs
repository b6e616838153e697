//! Presence in a request for a stream (`presence=`, `name=`).

use crate::{
    auth::grant::Grant,
    model::{
        presence::MemberName,
        topic::{Topic, TopicPattern},
    },
    presence::{Rooms, TooManyTopicsError, participation::Participation},
};

/// Largest number of topics in which one stream can take part.
const TOPICS_PER_STREAM_MAX: usize = 16;

/// Request to take part in the topics that a reader names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceRequest {
    /// Topics without patterns.
    topics: Vec<Topic>,
    /// Name that the reader gives itself.
    name: Option<MemberName>,
}

/// Error of a stream that cannot take part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PresenceError {
    /// The reader may not have this name: 400.
    #[error("{0}")]
    Name(String),
    /// A limit is reached: the reader is to retry later.
    #[error(transparent)]
    TooManyTopics(#[from] TooManyTopicsError),
}

impl PresenceRequest {
    /// Parses the values of `presence=` and `name=`. `topics` are those that the reader named.
    ///
    /// # Errors
    /// Returns a text for the reader, which names the parameter.
    pub(crate) fn parse(
        presence: Option<&str>,
        name: Option<&str>,
        topics: &[TopicPattern],
        is_poll: bool,
    ) -> Result<Option<Self>, String> {
        let name = name.map(|text| {
            let shown: String = text.chars().take(64).collect();
            text.parse::<MemberName>().map_err(|err| format!("name: {shown:?} {err}"))
        });
        let name = name.transpose()?;
        match presence {
            None | Some("off") if name.is_some() => {
                return Err("name: is for members: add presence=on".to_owned());
            }
            None | Some("off") => return Ok(None),
            Some("on") => {}
            Some(other) => {
                let shown: String = other.chars().take(64).collect();
                return Err(format!("presence: {shown:?} is not on or off"));
            }
        }
        if is_poll {
            return Err("presence: is for streams, not polls".to_owned());
        }
        let exact = topics.iter().filter_map(|pattern| match pattern {
            TopicPattern::Exact(topic) => Some(topic.clone()),
            TopicPattern::All | TopicPattern::Prefix(_) => None,
        });
        let topics: Vec<_> = exact.collect();
        if topics.is_empty() {
            let text = "presence: name the topics to take part in, as in topic=lobby: a pattern or \
                        no topic is not enough";
            return Err(text.to_owned());
        }
        if TOPICS_PER_STREAM_MAX < topics.len() {
            return Err(format!("presence: is for at most {TOPICS_PER_STREAM_MAX} topics"));
        }
        Ok(Some(Self { topics, name }))
    }

    /// Prepares the participation of a stream. With a token, its subject is the name of the member.
    ///
    /// # Errors
    /// Fails for a name that the reader may not have, and when a limit is reached.
    pub(crate) fn reserve(
        &self,
        rooms: &Rooms,
        grant: Option<&Grant>,
    ) -> Result<Box<Participation>, PresenceError> {
        let name = match grant {
            None => self.name.clone(),
            Some(_) if self.name.is_some() => {
                let text = "name: is for gateways without tokens (--read-auth anonymous): here, a \
                            member has the subject (sub) of its token";
                return Err(PresenceError::Name(text.to_owned()));
            }
            Some(grant) => {
                let subject = grant.subject.as_deref().map(str::parse).transpose();
                subject.map_err(|err| {
                    PresenceError::Name(format!(
                        "presence: the subject (sub) of the token cannot be the name of a member: \
                         it {err}"
                    ))
                })?
            }
        };
        Ok(rooms.reserve(&self.topics, name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(names: &[&str]) -> Vec<TopicPattern> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn parse(
        presence: Option<&str>,
        name: Option<&str>,
        names: &[&str],
    ) -> Result<Option<PresenceRequest>, String> {
        PresenceRequest::parse(presence, name, &topics(names), false)
    }

    #[test]
    fn a_stream_takes_part_in_the_topics_that_it_names() {
        let request = parse(Some("on"), Some("alice"), &["*", "lobby", "rooms.*", "stage"]);
        let PresenceRequest { topics, name } = request.unwrap().unwrap();
        assert_eq!(topics.iter().map(Topic::as_str).collect::<Vec<_>>(), ["lobby", "stage"]);
        assert_eq!(name.unwrap().as_str(), "alice");
        assert_eq!(parse(None, None, &[]), Ok(None));
        assert_eq!(parse(Some("off"), None, &["lobby"]), Ok(None));
    }

    #[test]
    fn errors_name_the_parameter_and_what_to_do() {
        let many: Vec<_> = (0..17).map(|n| format!("topic-{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        for (presence, name, topics, part) in [
            (Some("yes"), None, &["lobby"][..], "\"yes\" is not on or off"),
            (None, Some("alice"), &["lobby"], "add presence=on"),
            (Some("on"), Some("a\nb"), &["lobby"], "name: \"a\\nb\" contains a control character"),
            (Some("on"), None, &[], "name the topics"),
            (Some("on"), None, &["*", "rooms.*"], "name the topics"),
            (Some("on"), None, &many, "at most 16 topics"),
        ] {
            let text = parse(presence, name, topics).unwrap_err();
            assert!(text.contains(part), "{text}");
        }
        let of_poll = PresenceRequest::parse(Some("on"), None, &topics(&["lobby"]), true);
        assert!(of_poll.unwrap_err().contains("polls"));
    }
}
