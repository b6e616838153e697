//! Settings of streaming pull.

use std::str::FromStr;

use crate::model::topic::{ParseTopicError, Topic};

/// Subscriptions that are pulled, and how.
#[derive(Debug, Clone)]
pub struct PullConfig {
    /// Subscriptions. If empty, none is pulled.
    pub subscriptions: Vec<PullSubscription>,
    /// URL of Pub/Sub. With `http`, no credentials are sent.
    pub endpoint: String,
    /// Messages of each subscription that are received and not acked yet, at once.
    pub messages: u32,
}

/// Subscription that is pulled, and the topic that its messages are published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSubscription {
    /// Name, as in `projects/p/subscriptions/orders`.
    pub name: String,
    /// Topic of its events.
    pub topic: Topic,
}

/// Error for text that names no subscription, or no topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParsePullError {
    /// The text is not the full name of a subscription.
    #[error(
        "{0:?} is not a subscription: expected projects/PROJECT/subscriptions/SUBSCRIPTION, and \
         =TOPIC after it if the topic of its events has another name"
    )]
    Subscription(String),
    /// The text after `=` is not the name of a topic.
    #[error(transparent)]
    Topic(#[from] ParseTopicError),
}

impl PullSubscription {
    /// Returns the project and the id of the subscription.
    pub fn project_and_id(&self) -> (&str, &str) {
        parts(&self.name).unwrap_or(("", &self.name))
    }
}

/// Returns the project and the id of a subscription's full name.
fn parts(name: &str) -> Option<(&str, &str)> {
    let (project, id) = name.strip_prefix("projects/")?.split_once("/subscriptions/")?;
    // The grammar of a subscription's id is that of a topic name.
    (is_project(project) && id.parse::<Topic>().is_ok()).then_some((project, id))
}

/// Returns true if a text can be the id of a project.
pub(super) fn is_project(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
    !text.is_empty() && text.chars().all(is_allowed)
}

impl FromStr for PullSubscription {
    type Err = ParsePullError;

    fn from_str(text: &str) -> Result<Self, ParsePullError> {
        let (name, topic) = text.split_once('=').map_or((text, None), |(a, b)| (a, Some(b)));
        let (_, id) = parts(name).ok_or_else(|| ParsePullError::Subscription(text.to_owned()))?;
        Ok(Self { name: name.to_owned(), topic: topic.unwrap_or(id).parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_is_the_subscriptions_id_unless_one_is_given() {
        for (text, name, topic) in [
            ("projects/p/subscriptions/orders", "projects/p/subscriptions/orders", "orders"),
            ("projects/a.com:p/subscriptions/s-1=abc", "projects/a.com:p/subscriptions/s-1", "abc"),
        ] {
            let read: PullSubscription = text.parse().unwrap();
            assert_eq!((&*read.name, read.topic.as_str()), (name, topic));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "orders",
            "projects/p/topics/orders",
            "projects//subscriptions/orders",
            "projects/p/subscriptions/",
            "projects/p/subscriptions/a/b",
            "projects/p q/subscriptions/orders",
            "/projects/p/subscriptions/orders",
        ] {
            let refused = text.parse::<PullSubscription>().unwrap_err();
            assert!(refused.to_string().contains("projects/PROJECT/subscriptions"), "{refused}");
        }
        let refused = "projects/p/subscriptions/orders=".parse::<PullSubscription>().unwrap_err();
        assert!(refused.to_string().contains("not a topic name"), "{refused}");
    }
}
