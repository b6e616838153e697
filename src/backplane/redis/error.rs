//! Errors of connections to Redis and of the tail.

use std::{io, path::PathBuf, time::Duration};

use redis::{ErrorKind, RedisError};

/// Longest time for a connection, its handshake and its checks included.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Error for a server to which there is no usable connection. The text is the predicate of a
/// sentence about the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Redis(RedisError),
    #[error("it rejects the login: check --redis-user and --redis-password-file ({0})")]
    Login(RedisError),
    #[error("cannot read {0}: {1}")]
    File(PathBuf, io::Error),
    #[error("it was not ready for use within {CONNECT_MAX:?}")]
    Timeout,
    #[error("it is a replica, which accepts no writes: --backplane must name the master")]
    Replica,
    /// A server that evicts keys evicts deduplication keys first, which shows redeliveries twice,
    /// and then the log.
    #[error(
        "its maxmemory-policy is {0}, so it can delete acked events. It must be noeviction: \
         redis-cli CONFIG SET maxmemory-policy noeviction; on Memorystore: gcloud redis instances \
         update INSTANCE --region=REGION --update-redis-config maxmemory-policy=noeviction"
    )]
    Evicts(String),
    #[error(
        "it is a cluster, but this gateway keeps its log on one server: turn cluster mode off (on \
         Memorystore: use an instance without cluster mode)"
    )]
    Cluster,
    #[error("--redis-ca: {0}")]
    Ca(RedisError),
    #[error("its answer to INFO has no {0}: expected Redis 6.2 or later, or Valkey")]
    NoInfo(&'static str),
}

impl ConnectError {
    /// Returns true if only a change of a setting can help, here or on the server.
    pub(crate) fn is_setting(&self) -> bool {
        matches!(
            self,
            Self::Evicts(_) | Self::Cluster | Self::NoInfo(_) | Self::File(..) | Self::Ca(_)
        )
    }
}

impl From<RedisError> for ConnectError {
    fn from(err: RedisError) -> Self {
        // A server that requires a password accepts the connection and answers NOAUTH to the first
        // command.
        if err.kind() == ErrorKind::AuthenticationFailed || err.code() == Some("NOAUTH") {
            Self::Login(err)
        } else {
            Self::Redis(err)
        }
    }
}

/// Reason for which the tail must connect again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TailError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("the server is no longer the master")]
    Demoted,
    #[error("the log ends before the last entry that was read")]
    LogShortened,
    #[error("pushes are appended on another server")]
    AppendsElsewhere,
    #[error("the server's reply has an unexpected form")]
    UnexpectedReply,
}
