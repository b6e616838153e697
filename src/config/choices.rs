//! Choices: values of flags that are one of a few names.

/// Subcommand that starts a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Trial: loopback addresses only, no tokens, a page that shows events.
    Dev,
    /// Production: pushes and reads need a token unless a flag says otherwise.
    Serve,
}

/// Answer to a message that can never be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPoison {
    /// Ack the message, count it and log it.
    Ack,
    /// Refuse the message, so that Pub/Sub moves it to the subscription's dead-letter topic.
    Nack,
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// JSON object for each line, as Cloud Logging reads it.
    Json,
}
