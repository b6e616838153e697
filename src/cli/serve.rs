//! `dev` and `serve`: start the gateway, and stop it at a signal.

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    backplane::redis::{self, ConnectError},
    cli::EXIT_USAGE,
    config::{BackplaneConfig, Config, Mode, PublishAuth, PushAuth},
    server::{self, FileError, Files, ListenError, Listeners},
    telemetry::logs,
};

/// Error at the start or the end of the gateway.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    /// File that cannot be used. Found before the listeners are bound.
    #[error(transparent)]
    File(#[from] FileError),
    /// Redis server that cannot be used.
    #[error("--backplane: the Redis server cannot be used: {0}")]
    Redis(#[from] ConnectError),
    /// Log that cannot be set up.
    #[error("{0}")]
    Log(Box<dyn std::error::Error + Send + Sync>),
    /// Address that the gateway cannot listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Other error of the operating system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs the gateway until SIGTERM or SIGINT. Prints the error if it cannot start.
#[expect(clippy::print_stderr, reason = "the log may not work")]
pub fn run(config: Config) -> ExitCode {
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{err}");
            let usage = matches!(err, ServeError::File(_) | ServeError::Redis(_));
            if usage { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Starts the parts in order: files and the Redis server are checked first, so that an error in the
/// configuration ends the process before it accepts connections.
fn start(config: Config) -> Result<(), ServeError> {
    let files = Files::load(&config)?;
    logs::init(config.log_format, &config.log_level).map_err(ServeError::Log)?;
    let system = actix_web::rt::System::new();
    if let BackplaneConfig::Redis(options) = &config.backplane {
        system.block_on(redis::check(options))?;
    }
    // The handler must exist before the first log line: a program that reads the line may send
    // SIGTERM at once, and the default action of SIGTERM kills the process.
    let shutdown = system.block_on(async { shutdown_signal() })?;
    let listeners = Listeners::bind(&config)?;
    log_start(&config, &listeners)?;
    raise_file_limit(&config);
    system.block_on(server::run(config, files, listeners, shutdown))?;
    tracing::info!("stopped");
    Ok(())
}

/// Logs the addresses, and a warning if anyone may push or publish.
fn log_start(config: &Config, listeners: &Listeners) -> std::io::Result<()> {
    let listen = listeners.public.local_addr()?.to_string();
    let ops_listen = listeners.ops.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
    let ops_listen = ops_listen.map_or_else(|| "off".to_owned(), |address| address.to_string());
    tracing::info!(listen, ops_listen, workers = config.workers, "listening");
    if config.mode == Mode::Dev {
        let program = std::env::args_os().next().unwrap_or_else(|| "stream-events".into());
        for line in commands_to_try(&program.to_string_lossy(), &listen) {
            tracing::info!("{line}");
        }
    }
    if config.mode == Mode::Serve {
        warn_if_open(config);
    }
    Ok(())
}

/// Returns what a user of `dev` can copy. `program` is this program as the user called it, which
/// may be outside the `PATH`, and `listen` the address of the gateway.
fn commands_to_try(program: &str, listen: &str) -> [String; 4] {
    [
        format!("open http://{listen}/, or copy these, each into a terminal of its own:"),
        format!("  curl -N {listen}/events"),
        format!("  {program} tail --url {listen}"),
        format!("  {program} publish --url {listen} --topic orders '{{\"id\":1}}'"),
    ]
}

/// Logs a warning for each inlet that needs no token.
fn warn_if_open(config: &Config) {
    let is_push_open = config.push_auth == PushAuth::None;
    let is_publish_open = matches!(config.publish_auth, PublishAuth::None);
    for (flag, is_open) in [("--push-auth", is_push_open), ("--publish-auth", is_publish_open)] {
        if is_open {
            tracing::warn!("{flag} none: anyone who can connect can publish");
        }
    }
}

/// Returns the number of files that may be open: one for each connection. Idle connections are
/// limited for each worker.
fn files_wanted(config: &Config) -> usize {
    config.subscribers_max + config.idle_connections_max * config.workers
}

/// Raises the limit of open files as far as the system allows. Each connection is an open file. The
/// limit is 1,024 on many systems, and a gateway at the limit cannot even answer probes.
fn raise_file_limit(config: &Config) {
    let wanted = files_wanted(config);
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, ..limit };
    if let Err(err) = setrlimit(Resource::Nofile, all) {
        tracing::warn!(error = %err, "cannot raise the limit of open files");
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if allowed < wanted as u64 && config.mode == Mode::Serve {
        tracing::warn!(
            allowed,
            wanted,
            "the limit of open files is too low for --subscribers-max and --idle-connections-max: raise \
             ulimit -n, or lower the flags"
        );
    }
}

/// Returns a future that resolves at the first SIGTERM or SIGINT. A later SIGINT ends the process
/// at once, with exit code 130.
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
            #[expect(clippy::exit, reason = "a second ^C means: do not wait for the drain")]
            std::process::exit(130);
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Texts;

    #[test]
    fn each_worker_has_idle_connections_of_its_own() {
        let texts: Texts = [("workers", "4"), ("subscribers-max", "100")]
            .into_iter()
            .chain([("idle-connections-max", "16"), ("listen", "127.0.0.1:0")])
            .map(|(flag, text)| (flag, vec![text.to_owned()]))
            .collect();
        let config = Config::from_texts(Mode::Dev, &texts, None).unwrap();
        assert_eq!(files_wanted(&config), 100 + 4 * 16);
    }
}
