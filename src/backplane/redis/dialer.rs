//! Connects to a Redis server and checks that it can hold the log.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo,
    TlsCertificates, cmd, io::tcp::TcpSettings,
};

use crate::{
    backplane::redis::{
        error::{CONNECT_MAX, ConnectError},
        keys::Keys,
        link::{Link, LogContext},
        scripts::Scripts,
    },
    config::{Password, RedisConfig},
};

/// Opens connections to one server.
#[derive(Debug)]
pub(crate) struct Dialer(Arc<LogContext>);

impl Dialer {
    /// Creates a dialer for the server of `config`.
    pub(crate) fn new(config: &RedisConfig) -> Arc<Self> {
        Arc::new(Self(Arc::new(LogContext {
            keys: Keys::new(&config.prefix),
            scripts: Scripts::default(),
            config: config.clone(),
        })))
    }

    /// Returns the host and port of the server, for logs.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.0.config.host, self.0.config.port)
    }

    /// Connects, and checks that the server is a master that evicts nothing. `response_max` is the
    /// longest time for the answer to a command.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(crate) async fn dial(&self, response_max: Duration) -> Result<Link, ConnectError> {
        let dialling = tokio::time::timeout(CONNECT_MAX, self.connect(response_max));
        dialling.await.unwrap_or(Err(ConnectError::Timeout))
    }

    async fn connect(&self, response_max: Duration) -> Result<Link, ConnectError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(response_max));
        let client = self.client()?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let info: String = cmd("INFO").query_async(&mut connection).await?;
        let info: HashMap<_, _> = info.lines().filter_map(|line| line.split_once(':')).collect();
        let field = |name| info.get(name).copied().ok_or(ConnectError::NoInfo(name));
        if field("cluster_enabled")? != "0" {
            return Err(ConnectError::Cluster);
        }
        if field("role")? != "master" {
            return Err(ConnectError::Replica);
        }
        let policy = field("maxmemory_policy")?;
        if policy != "noeviction" {
            return Err(ConnectError::Evicts(policy.to_owned()));
        }
        let run_id = field("run_id")?.into();
        self.0.scripts.load(&mut connection).await?;
        Ok(Link::new(Arc::clone(&self.0), connection, run_id))
    }

    fn client(&self) -> Result<Client, ConnectError> {
        let RedisConfig { host, port, tls, database, user, password, ca, .. } = &self.0.config;
        let (host, port) = (host.clone(), *port);
        let address = if *tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut login = RedisConnectionInfo::default().set_db(*database);
        if let Some(user) = user {
            login = login.set_username(user);
        }
        if let Some(password) = password {
            login = match password {
                Password::Text(text) => login.set_password(text),
                // Read for each connection, since the password can be a token that changes hourly.
                Password::File(path) => login.set_password(read_file(path)?.trim_end()),
            };
        }
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = address.into_connection_info()?.set_redis_settings(login).set_tcp_settings(tcp);
        match ca {
            Some(path) => {
                let root_cert = Some(read_file(path)?.into_bytes());
                let certificates = TlsCertificates { client_tls: None, root_cert };
                Client::build_with_tls(info, certificates).map_err(ConnectError::Ca)
            }
            None => Ok(Client::open(info)?),
        }
    }
}

fn read_file(path: &Path) -> Result<String, ConnectError> {
    std::fs::read_to_string(path).map_err(|err| ConnectError::File(path.to_owned(), err))
}
