//! Connection to a Redis server that holds the log, and the commands that it accepts.

use std::{sync::Arc, time::Duration};

use redis::{
    Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Script, ServerErrorKind, Value,
    aio::MultiplexedConnection, cmd, pipe,
};

use crate::{
    backplane::{
        redis::{keys::Keys, scripts::Scripts},
        renewal::Renewal,
    },
    config::RedisConfig,
    model::event_id::EventId,
};

/// Connection to a master that was checked. A clone shares it: the commands of all clones are sent
/// in one stream, and none waits for the answer of another.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) context: Arc<LogContext>,
    pub(crate) connection: MultiplexedConnection,
    /// Id of the server process: a restart changes it.
    run_id: Arc<str>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

/// Keys, scripts and settings that all connections share.
#[derive(Debug)]
pub(crate) struct LogContext {
    pub(crate) keys: Keys,
    pub(crate) scripts: Scripts,
    pub(crate) config: RedisConfig,
}

/// Position from which a tail reads.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Newest id of the log.
    pub(crate) newest: EventId,
    /// Id just before the first entry to read. Earlier entries are too old, or were trimmed.
    pub(crate) after: EventId,
    /// Newest renewal. Later ones are for the streams that are open now.
    pub(crate) renewal: EventId,
}

/// Undecoded reply to [`Link::read`]. Decoding it must not fail as a whole because of one entry.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Answer to `ROLE`.
    pub(crate) role: Value,
    /// Answer of `lua/read.lua`.
    pub(crate) read: Value,
}

/// Bytes after which a read ends. The last entry can exceed it.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Largest number of entries in one read.
const BATCH_MAX: usize = 256;
/// Capacity of a command: arguments beside its keys, and bytes for each of its keys. A command that
/// appends many messages is not copied several times while it grows.
const CALL_ARGS: usize = 10;
const CALL_BYTES: usize = 400;
/// Renewals that Redis keeps. Tails read them at once; kept ones are for tails that lose their
/// connection for a moment.
const RENEWALS_KEPT: &str = "10000";

impl Link {
    /// Creates a link on a connection to the server process `run_id`.
    pub(crate) fn new(
        context: Arc<LogContext>,
        connection: MultiplexedConnection,
        run_id: Arc<str>,
    ) -> Self {
        Self { context, connection, run_id }
    }

    /// Returns true if both links use the same connection.
    pub(crate) fn is_same_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.run_id, &other.run_id)
    }

    /// Returns the run id of the server: it identifies one start of one server.
    pub(crate) fn server(&self) -> &Arc<str> {
        &self.run_id
    }

    /// Prepares to read the entries of the last `max_age` by the server's clock. Must be called
    /// before the first [`Self::read`] of a connection. `seen` is the newest entry that was read;
    /// `previous_server` is the server that it was read from.
    ///
    /// # Errors
    /// Fails when Redis does not answer.
    pub(crate) async fn open(
        &mut self,
        seen: EventId,
        max_age: Duration,
        previous_server: Option<&str>,
    ) -> RedisResult<Opened> {
        let context = Arc::clone(&self.context);
        let keys = [context.keys.log.as_str(), &context.keys.state, &context.keys.renewals];
        let (newest, after, renewal): (String, String, String) = self
            .call(&context.scripts.open, &keys, |command, run_id| {
                command.arg(run_id).arg(seen.to_string()).arg(max_age.as_millis().to_string());
                command.arg(previous_server.unwrap_or_default());
            })
            .await?;
        Ok(Opened {
            newest: parse_id(&newest)?,
            after: parse_id(&after)?,
            renewal: parse_id(&renewal)?,
        })
    }

    /// Removes the oldest entries that exceed a limit of the log, as many as one bounded step
    /// allows. Returns true if there may be more. `check_bytes` includes the limit of bytes, whose
    /// check takes Redis time in proportion to the log.
    ///
    /// # Errors
    /// Fails when Redis does not answer.
    pub(crate) async fn trim(&mut self, check_bytes: bool) -> RedisResult<bool> {
        let context = Arc::clone(&self.context);
        let keys = [context.keys.log.as_str(), &context.keys.state];
        let config = &context.config;
        let bytes = if check_bytes { config.log_bytes.to_string() } else { String::new() };
        let (_, more): (u64, u64) = self
            .call(&context.scripts.trim, &keys, |command, _| {
                let age = config.log_age.as_millis().to_string();
                command.arg(age).arg(config.log_events).arg(bytes);
            })
            .await?;
        Ok(more == 1)
    }

    /// Reads the entries after `after` and the renewals after `renewal`. With `block`, waits up to
    /// this time for the first of them.
    ///
    /// # Errors
    /// Fails when Redis does not answer.
    pub(crate) async fn read(
        &mut self,
        after: EventId,
        renewal: EventId,
        block: Option<Duration>,
    ) -> RedisResult<Reply> {
        let LogContext { keys: Keys { log, state, renewals, .. }, scripts, .. } = &*self.context;
        let (after, renewal) = (after.to_string(), renewal.to_string());
        let mut commands = pipe();
        if let Some(block) = block {
            // Used only to wait: XREAD cannot limit the bytes of its answer, the script can.
            let block = block.as_millis().to_string();
            commands.cmd("XREAD").arg("COUNT").arg(1).arg("BLOCK").arg(block);
            commands.arg(&["STREAMS", log, renewals, &after, &renewal]).ignore();
        }
        // After the wait, so that its answer arrives together with the others.
        commands.cmd("ROLE");
        commands.cmd("EVALSHA").arg(scripts.read.get_hash()).arg(3).arg(&[log, state, renewals]);
        commands.arg(&[&after, &renewal]).arg(BATCH_BYTES).arg(BATCH_MAX);
        let (role, read): (Value, Value) = commands.query_async(&mut self.connection).await?;
        Ok(Reply { role, read })
    }

    /// Returns the newest id of the log. `None` if the log was lost and no script has restored it
    /// yet.
    ///
    /// # Errors
    /// Fails when Redis does not answer.
    pub(crate) async fn newest(&mut self) -> RedisResult<Option<EventId>> {
        let mut command = cmd("HGET");
        command.arg(&self.context.keys.state).arg("newest");
        let newest: Option<String> = command.query_async(&mut self.connection).await?;
        newest.map(|id| parse_id(&id)).transpose()
    }

    /// Appends a renewal to the stream that all tails read.
    ///
    /// # Errors
    /// Fails when Redis does not confirm.
    pub(crate) async fn renew(&mut self, renewal: &Renewal) -> RedisResult<()> {
        let mut command = cmd("XADD");
        command.arg(&self.context.keys.renewals).arg(&["MAXLEN", "~", RENEWALS_KEPT, "*"]);
        command.arg(&["stream", &renewal.stream, "grant", &renewal.grant]);
        command.query_async(&mut self.connection).await
    }

    /// Runs a script. `add_args` adds its arguments and receives the run id of the server.
    pub(crate) async fn call<T: FromRedisValue>(
        &mut self,
        script: &Script,
        keys: &[&str],
        add_args: impl FnOnce(&mut Cmd, &str),
    ) -> RedisResult<T> {
        let mut command = Cmd::with_capacity(CALL_ARGS + keys.len(), CALL_BYTES * keys.len());
        command.arg("EVALSHA").arg(script.get_hash()).arg(keys.len()).arg(keys);
        add_args(&mut command, &self.run_id);
        match command.query_async(&mut self.connection).await {
            // `SCRIPT FLUSH` removed the scripts from the server.
            Err(err) if err.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                script.load_async(&mut self.connection).await?;
                command.query_async(&mut self.connection).await
            }
            answer => answer,
        }
    }
}

/// Parses an id from Redis.
pub(crate) fn parse_id(text: &str) -> RedisResult<EventId> {
    text.parse().map_err(|err| {
        RedisError::from((ErrorKind::UnexpectedReturnType, "not an id", format!("{text:?}: {err}")))
    })
}
