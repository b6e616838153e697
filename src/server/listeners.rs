//! Sockets that the gateway listens on.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use socket2::{Domain, Socket as Socket2, Type};

use crate::{
    config::{Config, Mode},
    net::accept::set_options,
};

/// Listening sockets. They are bound before the gateway starts, so that an address in use is found
/// early, and port 0 has become a real port.
#[derive(Debug)]
pub struct Listeners {
    /// Socket for readers and pushes.
    pub public: TcpListener,
    /// Socket for metrics and probes.
    pub ops: Option<TcpListener>,
}

/// Failure to listen on an address, with advice.
#[derive(Debug, thiserror::Error)]
#[error("--{flag}: cannot listen on {address}: {source}.{advice}")]
pub struct ListenError {
    /// Flag with the address.
    flag: &'static str,
    /// Address that was tried.
    address: SocketAddr,
    /// Cause.
    source: io::Error,
    advice: Advice,
}

/// Advice for a user whose address cannot be used.
#[derive(Debug)]
enum Advice {
    /// Another program uses `port`. `another` is the flag with another port.
    PortInUse { another: String, port: u16 },
    /// The process lacks the right that ports below 1024 need. `another` is the flag with a port
    /// that needs none.
    NotAllowed { another: String },
    /// The address belongs to no network interface of this machine.
    NoSuchAddress,
    /// Advice is not available.
    None,
}

impl Listeners {
    /// Listens on the addresses of the configuration.
    ///
    /// # Errors
    /// Returns the address that cannot be used, with advice.
    pub fn bind(config: &Config) -> Result<Self, ListenError> {
        let listen = |flag, address| {
            let listening = bind(address, config.write_timeout).and_then(|socket| {
                socket.listen(BACKLOG)?;
                Ok(TcpListener::from(socket))
            });
            listening.map_err(|source| ListenError::new(flag, address, config.mode, source))
        };
        let public = listen("listen", config.listen)?;
        let ops = config.ops_listen.map(|address| listen("ops-listen", address)).transpose()?;
        Ok(Self { public, ops })
    }

    /// Returns an error for each address of the configuration on which the gateway could not listen
    /// now. Binds the addresses only, so that no client can connect.
    pub(crate) fn problems(config: &Config) -> Vec<ListenError> {
        let ops = config.ops_listen.map(|address| ("ops-listen", address));
        let addresses = [("listen", config.listen)].into_iter().chain(ops);
        let problem = |(flag, address)| {
            let source = bind(address, config.write_timeout).err()?;
            Some(ListenError::new(flag, address, config.mode, source))
        };
        addresses.filter_map(problem).collect()
    }
}

impl ListenError {
    fn new(flag: &'static str, address: SocketAddr, mode: Mode, source: io::Error) -> Self {
        let advice = Advice::on(&source, flag, address, mode);
        Self { flag, address, source, advice }
    }
}

/// Binds a socket, which does not listen yet. `write_timeout` applies to the sockets that it will
/// accept.
fn bind(address: SocketAddr, write_timeout: Duration) -> io::Result<Socket2> {
    let socket = Socket2::new(Domain::for_address(address), Type::STREAM, None)?;
    // With the option, a restart does not wait until the system forgets the old connections.
    socket.set_reuse_address(true)?;
    // Before the socket listens: readers can connect before the gateway accepts.
    set_options(&socket, write_timeout)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Largest number of connections that wait to be accepted. When a proxy fails, all its readers
/// connect again at once. With 128, the value of the standard library, most of them would wait for
/// a retry of a second or more. The kernel lowers the number to `somaxconn`, 4,096 by default.
const BACKLOG: i32 = 4_096;

/// Number that is added to a port below 1024 for the advice, as in 8080 for 80.
const ABOVE_PRIVILEGED: u16 = 8_000;

impl Advice {
    /// Returns the advice for an error on this address.
    fn on(err: &io::Error, flag: &str, address: SocketAddr, mode: Mode) -> Self {
        let default = match mode {
            Mode::Dev => "127.0.0.1",
            Mode::Serve => "0.0.0.0",
        };
        let with_port = |port| {
            if flag == "listen" && address.ip().to_string() == default {
                return format!("--port {port}");
            }
            format!("--{flag} {}", SocketAddr::new(address.ip(), port))
        };
        let port = address.port();
        match err.kind() {
            io::ErrorKind::AddrInUse => {
                let another = with_port(port.checked_add(1).unwrap_or(port - 1));
                Self::PortInUse { another, port }
            }
            io::ErrorKind::PermissionDenied => {
                Self::NotAllowed { another: with_port(port.saturating_add(ABOVE_PRIVILEGED)) }
            }
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortInUse { another, port } => {
                let find = if cfg!(target_os = "linux") {
                    format!("ss -ltnp 'sport = :{port}'")
                } else {
                    format!("lsof -nP -iTCP:{port} -sTCP:LISTEN")
                };
                write!(
                    f,
                    "\nAnother program uses port {port}. Choose another port: {another}\nOr find \
                     the program and stop it: {find}"
                )
            }
            Self::NotAllowed { another } => write!(
                f,
                "\nPorts below 1024 need the right CAP_NET_BIND_SERVICE. Choose another port: \
                 {another}"
            ),
            Self::NoSuchAddress => f.write_str(
                "\nNo network interface of this machine has this address. 0.0.0.0 listens on all \
                 of them, 127.0.0.1 on this machine alone",
            ),
            Self::None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: io::ErrorKind, flag: &'static str, address: &str, mode: Mode) -> String {
        ListenError::new(flag, address.parse().unwrap(), mode, kind.into()).to_string()
    }

    #[test]
    fn the_advice_fits_the_error_and_the_flag() {
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
        for (kind, flag, address, mode, advice) in [
            (AddrInUse, "listen", "127.0.0.1:8080", Mode::Dev, "--port 8081\n"),
            (AddrInUse, "listen", "0.0.0.0:8080", Mode::Serve, "--port 8081\n"),
            (AddrInUse, "listen", "10.0.0.7:65535", Mode::Serve, "--listen 10.0.0.7:65534\n"),
            (AddrInUse, "ops-listen", "[::]:9090", Mode::Serve, "--ops-listen [::]:9091\n"),
            (AddrInUse, "listen", "127.0.0.1:8080", Mode::Dev, ":8080"),
            (PermissionDenied, "listen", "0.0.0.0:80", Mode::Serve, "--port 8080"),
            (AddrNotAvailable, "listen", "10.0.0.7:80", Mode::Serve, "0.0.0.0 listens on all"),
        ] {
            let text = error(kind, flag, address, mode);
            let start = format!("--{flag}: cannot listen on {address}: ");
            assert!(text.starts_with(&start) && text.contains(advice), "{text}");
        }
    }
}
