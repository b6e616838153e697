//! A connection to a Redis server, and what has to be known of the server before it is used.

use std::{collections::HashMap, io, path::PathBuf, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue,
    IntoConnectionInfo as _, RedisConnectionInfo, RedisError, RedisResult, Script, ServerErrorKind,
    TlsCertificates, Value, aio::MultiplexedConnection, cmd, io::tcp::TcpSettings, pipe,
};

use crate::{
    backplane::Renewal,
    config::{Password, Redis as Options},
    model::event::EventId,
};

/// How long a connection, its handshake included, may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Why there is no connection that can be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Redis(RedisError),
    #[error("it does not let this gateway in: see --redis-user and --redis-password-file ({0})")]
    Login(RedisError),
    #[error("cannot read {0}: {1}")]
    File(PathBuf, io::Error),
    #[error("there was no connection within {CONNECT_MAX:?}")]
    TooSlow,
    #[error("it is a replica, which takes no events; --backplane must name the master")]
    Replica,
    /// It would evict the claims first, and show redeliveries twice; then the log.
    #[error(
        "its maxmemory-policy is {0}, which lets it forget what was acked. It must be noeviction: \
         redis-cli CONFIG SET maxmemory-policy noeviction; on Memorystore: gcloud redis instances \
         update INSTANCE --region=REGION --update-redis-config maxmemory-policy=noeviction"
    )]
    Evicts(String),
    #[error(
        "it is a cluster, and this gateway keeps one log on one server: turn cluster mode off \
         (on Memorystore: an instance without cluster mode)"
    )]
    Cluster,
    #[error("--redis-ca: {0}")]
    Ca(RedisError),
    #[error("it answers INFO without {0}: is it Redis 6.2 or later, or Valkey?")]
    NoInfo(&'static str),
}

impl LinkError {
    /// Whether only someone who changes a setting can help.
    pub fn is_setting(&self) -> bool {
        matches!(
            self,
            Self::Evicts(_) | Self::Cluster | Self::NoInfo(_) | Self::File(..) | Self::Ca(_)
        )
    }
}

impl From<RedisError> for LinkError {
    fn from(err: RedisError) -> Self {
        // A server that wants a password says so only to what comes after.
        if err.kind() == ErrorKind::AuthenticationFailed || err.code() == Some("NOAUTH") {
            Self::Login(err)
        } else {
            Self::Redis(err)
        }
    }
}

/// Connects to a server.
#[derive(Debug)]
pub struct Dialer {
    options: Options,
    pub(super) scripts: Scripts,
    log: String,
    state: String,
    renewals: String,
}

#[derive(Debug)]
pub(super) struct Scripts {
    append: Script,
    open: Script,
    read: Script,
    trim: Script,
    pub(super) keep: Script,
}

/// A connection to a master whose settings fit. A clone shares it: commands of all are sent in one
/// stream, and none waits for the answer of another.
#[derive(Clone)]
pub struct Link {
    pub(super) dialer: Arc<Dialer>,
    pub(super) connection: MultiplexedConnection,
    /// Of this start of this server.
    run_id: Arc<str>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

/// What a tail has to know before it reads on.
#[derive(Debug)]
pub struct Opened {
    pub newest: EventId,
    /// All that is wanted comes after this; what is before it is too old, or was trimmed away.
    pub after: EventId,
    /// The newest renewal: those that come later are for the streams that are open now.
    pub renewal: EventId,
}

impl Dialer {
    pub fn new(options: &Options) -> Arc<Self> {
        let script = |text| Script::new(&format!("{}\n{text}", include_str!("lua/shared.lua")));
        let key = |name| key_of(options, name);
        Arc::new(Self {
            options: options.clone(),
            scripts: Scripts {
                append: script(include_str!("lua/append.lua")),
                open: script(include_str!("lua/open.lua")),
                read: script(include_str!("lua/read.lua")),
                trim: script(include_str!("lua/trim.lua")),
                keep: script(include_str!("lua/keep.lua")),
            },
            log: key("log"),
            state: key("state"),
            renewals: key("renewals"),
        })
    }

    /// Where it connects to, for logs.
    pub fn address(&self) -> String {
        format!("{}:{}", self.options.host, self.options.port)
    }

    /// Connects, and checks that it is a master that forgets nothing by itself. An answer may take
    /// `response_max`.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn dial(self: &Arc<Self>, response_max: Duration) -> Result<Link, LinkError> {
        let dialling = tokio::time::timeout(CONNECT_MAX, self.connect(response_max));
        dialling.await.unwrap_or(Err(LinkError::TooSlow))
    }

    async fn connect(self: &Arc<Self>, response_max: Duration) -> Result<Link, LinkError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(response_max));
        let client = self.client()?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let info: String = cmd("INFO").query_async(&mut connection).await?;
        let info: HashMap<_, _> = info.lines().filter_map(|line| line.split_once(':')).collect();
        let said = |name| info.get(name).copied().ok_or(LinkError::NoInfo(name));
        if said("cluster_enabled")? != "0" {
            return Err(LinkError::Cluster);
        }
        if said("role")? != "master" {
            return Err(LinkError::Replica);
        }
        let policy = said("maxmemory_policy")?;
        if policy != "noeviction" {
            return Err(LinkError::Evicts(policy.to_owned()));
        }
        let run_id = said("run_id")?.into();
        // Here, so that the first push need not.
        let Scripts { append, open, read, trim, keep } = &self.scripts;
        for script in [append, open, read, trim, keep] {
            script.load_async(&mut connection).await?;
        }
        Ok(Link { dialer: Arc::clone(self), connection, run_id })
    }

    fn client(&self) -> Result<Client, LinkError> {
        let Options { host, port, tls, .. } = &self.options;
        let (host, port) = (host.clone(), *port);
        let address = if *tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut login = RedisConnectionInfo::default().set_db(self.options.database);
        if let Some(user) = &self.options.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.options.password {
            login = match password {
                Password::Text(text) => login.set_password(text),
                // Each time, since it may be one that is changed every hour.
                Password::File(path) => login.set_password(read(path)?.trim_end()),
            };
        }
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = address.into_connection_info()?.set_redis_settings(login).set_tcp_settings(tcp);
        match &self.options.ca {
            Some(path) => {
                let root_cert = Some(read(path)?.into_bytes());
                let certificates = TlsCertificates { client_tls: None, root_cert };
                Client::build_with_tls(info, certificates).map_err(LinkError::Ca)
            }
            None => Ok(Client::open(info)?),
        }
    }

    /// The name of a key.
    pub(super) fn key(&self, name: &str) -> String {
        key_of(&self.options, name)
    }

    fn claim(&self, topic: &str, message_id: &str) -> String {
        self.key(&format!("claim:{topic}:{message_id}"))
    }
}

/// What was read, as it came: what is wrong in it must not stop whoever reads.
#[derive(Debug)]
pub struct Reply {
    pub role: Value,
    pub read: Value,
}

/// A read is to have about so many bytes; the last entry in it may have more.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// And at most so many entries.
const BATCH_MAX: usize = 256;
/// A message id of Pub/Sub has some twenty digits. What is longer is not remembered, since it would
/// be out of all limits.
const MESSAGE_ID_MAX: usize = 128;
/// Tails read them at once; these are for those that lose their connection for a moment.
const RENEWALS_KEPT: &str = "10000";

fn read(path: &PathBuf) -> Result<String, LinkError> {
    std::fs::read_to_string(path).map_err(|err| LinkError::File(path.clone(), err))
}

impl Link {
    /// Whether two are on the same connection.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.run_id, &other.run_id)
    }

    /// Which start of which server it is connected to.
    pub fn server(&self) -> &Arc<str> {
        &self.run_id
    }

    /// Appends an entry, unless there is one of the same message. `write` adds the entry's fields.
    /// Returns the id, and whether it was there before.
    pub async fn append(
        &mut self,
        seen: EventId,
        claim: Option<(&str, &str)>,
        write: impl FnOnce(&mut Cmd),
    ) -> RedisResult<(EventId, bool)> {
        let dialer = Arc::clone(&self.dialer);
        let claim = claim.filter(|(_, message_id)| message_id.len() <= MESSAGE_ID_MAX);
        let claim = claim.map(|(topic, message_id)| dialer.claim(topic, message_id));
        let keys: Vec<&str> =
            [&dialer.log, &dialer.state].into_iter().chain(&claim).map(String::as_str).collect();
        let (outcome, id): (String, String) = self
            .call(&dialer.scripts.append, &keys, |command, run_id| {
                let claimed_ms = dialer.options.dedup_age.as_millis();
                command.arg(run_id).arg(seen.to_string()).arg(claimed_ms.to_string());
                write(command);
            })
            .await?;
        Ok((event_id(&id)?, outcome == "duplicate"))
    }

    /// To be called before anything is read from the log, of which as much is wanted as came within
    /// `wanted` until now, by the server's clock.
    /// `before` is the server that was read from before.
    pub async fn open(
        &mut self,
        seen: EventId,
        wanted: Duration,
        before: Option<&str>,
    ) -> RedisResult<Opened> {
        let dialer = Arc::clone(&self.dialer);
        let keys = [dialer.log.as_str(), &dialer.state, &dialer.renewals];
        let (newest, after, renewal): (String, String, String) = self
            .call(&dialer.scripts.open, &keys, |command, run_id| {
                command.arg(run_id).arg(seen.to_string()).arg(wanted.as_millis().to_string());
                command.arg(before.unwrap_or_default());
            })
            .await?;
        Ok(Opened {
            newest: event_id(&newest)?,
            after: event_id(&after)?,
            renewal: event_id(&renewal)?,
        })
    }

    /// Lets go of what is too old or too much, as far as one step goes. Returns whether there may
    /// be more. A look at the bytes takes the server some time.
    pub async fn trim(&mut self, look_at_bytes: bool) -> RedisResult<bool> {
        let dialer = Arc::clone(&self.dialer);
        let keys = [dialer.log.as_str(), &dialer.state];
        let options = &dialer.options;
        let bytes = if look_at_bytes { options.log_bytes.to_string() } else { String::new() };
        let (_, more): (u64, u64) = self
            .call(&dialer.scripts.trim, &keys, |command, _| {
                let age = options.log_age.as_millis().to_string();
                command.arg(age).arg(options.log_events).arg(bytes);
            })
            .await?;
        Ok(more == 1)
    }

    /// Reads on after these, as soon as there is something or, with `block`, after a time.
    pub async fn read(
        &mut self,
        after: EventId,
        renewal: EventId,
        block: Option<Duration>,
    ) -> RedisResult<Reply> {
        let Dialer { log, state, renewals, scripts, .. } = &*self.dialer;
        let (after, renewal) = (after.to_string(), renewal.to_string());
        let mut commands = pipe();
        commands.cmd("ROLE");
        if let Some(block) = block {
            // Only to be woken: it cannot be told how many bytes are wanted.
            commands
                .cmd("XREAD")
                .arg("COUNT")
                .arg(1)
                .arg("BLOCK")
                .arg(block.as_millis().to_string());
            commands.arg(&["STREAMS", log, renewals, &after, &renewal]).ignore();
        }
        commands.cmd("EVALSHA").arg(scripts.read.get_hash()).arg(3).arg(&[log, state, renewals]);
        commands.arg(&[&after, &renewal]).arg(BATCH_BYTES).arg(BATCH_MAX);
        let (role, read): (Value, Value) = commands.query_async(&mut self.connection).await?;
        Ok(Reply { role, read })
    }

    /// The log's newest id. None if the log is lost, and nobody has seen it yet.
    pub async fn newest(&mut self) -> RedisResult<Option<EventId>> {
        let mut command = cmd("HGET");
        command.arg(&self.dialer.state).arg("newest");
        let newest: Option<String> = command.query_async(&mut self.connection).await?;
        newest.map(|id| event_id(&id)).transpose()
    }

    /// Tells all tails of a renewal.
    pub async fn renew(&mut self, renewal: &Renewal) -> RedisResult<()> {
        let mut command = cmd("XADD");
        command.arg(&self.dialer.renewals).arg(&["MAXLEN", "~", RENEWALS_KEPT, "*"]);
        command.arg(&["stream", &renewal.stream, "grant", &renewal.grant]);
        command.query_async(&mut self.connection).await
    }

    pub(super) async fn call<T: FromRedisValue>(
        &mut self,
        script: &Script,
        keys: &[&str],
        write: impl FnOnce(&mut Cmd, &str),
    ) -> RedisResult<T> {
        let mut command = cmd("EVALSHA");
        command.arg(script.get_hash()).arg(keys.len()).arg(keys);
        write(&mut command, &self.run_id);
        match command.query_async(&mut self.connection).await {
            // Somebody had the server forget its scripts.
            Err(err) if err.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                script.load_async(&mut self.connection).await?;
                command.query_async(&mut self.connection).await
            }
            answer => answer,
        }
    }
}

/// One hash tag for all keys: a script's keys must be in one place.
fn key_of(options: &Options, name: &str) -> String {
    format!("{{{}}}:{name}", options.prefix)
}

/// An id that Redis gave.
pub fn event_id(text: &str) -> RedisResult<EventId> {
    text.parse().map_err(|err| {
        RedisError::from((ErrorKind::UnexpectedReturnType, "not an id", format!("{text:?}: {err}")))
    })
}
