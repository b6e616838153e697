//! Settings of the backplane: where events are stored.

use std::{fmt, path::PathBuf, time::Duration};

/// Store of the events.
#[derive(Debug, Clone)]
pub enum BackplaneConfig {
    /// Memory of this process.
    Local,
    /// Redis or Valkey, shared by all replicas.
    Redis(Box<RedisConfig>),
}

/// Address of a Redis server, and the limits of what it keeps.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Name or address of the server.
    pub host: String,
    /// Port of the server.
    pub port: u16,
    /// Number of the database.
    pub database: i64,
    /// True if the connection uses TLS.
    pub tls: bool,
    /// File with the certificates to check the server against. `None` for the system's.
    pub ca: Option<PathBuf>,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Password>,
    /// Prefix of the names of all keys.
    pub prefix: String,
    /// Time that an event is kept.
    pub log_age: Duration,
    /// Events that are kept, for all topics together.
    pub log_events: usize,
    /// Memory for events, in bytes.
    pub log_bytes: usize,
    /// Time that a message id is remembered.
    pub dedup_age: Duration,
}

/// Password, or the file that holds it. `Debug` hides the password.
#[derive(Clone)]
pub enum Password {
    /// File that holds the password. It is read for each connection.
    File(PathBuf),
    /// Password itself.
    Text(String),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text(…)"),
        }
    }
}
