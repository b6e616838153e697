//! `dev` and `serve`: the life of the gateway's process.

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    auth::key_file::{self, KeyFileError},
    backplane::redis::{self, ConnectError},
    cli::EXIT_USAGE,
    config::{BackplaneConfig, Config, Mode, PushAuth, ReadAuth, ReadKeys},
    net::tls::{TlsError, load_tls},
    server::{self, ListenError, Listeners},
    telemetry::logs,
};

/// Why the gateway did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    /// Found before anything is bound.
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("--read-key-file: {0}")]
    ReadKey(#[from] KeyFileError),
    #[error("--backplane: the Redis server cannot be used: {0}")]
    Redis(#[from] ConnectError),
    #[error("{0}")]
    Log(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
#[expect(clippy::print_stderr, reason = "the log may be what failed")]
pub fn run(config: Config) -> ExitCode {
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{err}");
            let usage =
                matches!(err, ServeError::Tls(_) | ServeError::Redis(_) | ServeError::ReadKey(_));
            if usage { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn start(config: Config) -> Result<(), ServeError> {
    let tls = config.tls.as_ref().map(load_tls).transpose()?;
    logs::init(config.log_format, &config.log_level).map_err(ServeError::Log)?;
    if let ReadAuth::Jwt(jwt) = &config.read_auth
        && let ReadKeys::File(path) = &jwt.keys
    {
        key_file::load_key(path)?;
    }
    let system = actix_web::rt::System::new();
    if let BackplaneConfig::Redis(options) = &config.backplane {
        system.block_on(redis::check(options))?;
    }
    let listeners = Listeners::bind(&config)?;
    log_start(&config, &listeners)?;
    raise_file_limit(&config);
    system.block_on(async {
        let shutdown = shutdown_signal()?;
        server::run(config, tls, listeners, shutdown).await
    })?;
    tracing::info!("stopped");
    Ok(())
}

fn log_start(config: &Config, listeners: &Listeners) -> std::io::Result<()> {
    let listen = listeners.public.local_addr()?.to_string();
    let ops_listen = listeners.ops.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
    let ops_listen = ops_listen.map_or_else(|| "off".to_owned(), |address| address.to_string());
    tracing::info!(listen, ops_listen, workers = config.workers, "listening");
    if config.mode == Mode::Dev {
        tracing::info!("open http://{listen}/ or run: curl -N {listen}/events");
    }
    if config.mode == Mode::Serve && config.push_auth == PushAuth::None {
        tracing::warn!("--push-auth none: anyone who can connect can publish");
    }
    Ok(())
}

/// Each connection is a file. Many systems let a process have 1,024 unless it asks for more, and a
/// gateway that runs out of files cannot even answer its probes.
fn raise_file_limit(config: &Config) {
    let wanted = config.subscribers_max + config.idle_connections_max;
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, ..limit };
    if let Err(err) = setrlimit(Resource::Nofile, all) {
        tracing::warn!(error = %err, "the limit of open files could not be raised");
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if allowed < wanted as u64 && config.mode == Mode::Serve {
        tracing::warn!(
            allowed,
            wanted,
            "fewer files may be open than --subscribers-max needs: raise ulimit -n or lower the flag"
        );
    }
}

/// Resolves at the first SIGTERM or SIGINT. A second SIGINT ends the process where it is.
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            interrupt.recv().await;
            #[expect(clippy::exit, reason = "whoever presses ^C twice does not want to wait")]
            std::process::exit(130);
        });
    })
}
