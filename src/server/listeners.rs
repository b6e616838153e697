//! The sockets that the gateway listens on.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Socket as Socket2, Type};

use crate::config::{Config, Mode};

/// Sockets that listen already, so that nothing can fail between being told the port and using it.
#[derive(Debug)]
pub struct Listeners {
    pub public: TcpListener,
    pub ops: Option<TcpListener>,
}

/// An address that the gateway cannot listen on, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("--{flag}: cannot listen on {address}: {source}.{advice}")]
pub struct ListenError {
    flag: &'static str,
    address: SocketAddr,
    source: io::Error,
    advice: Advice,
}

/// What to do about an address that cannot be listened on.
#[derive(Debug)]
enum Advice {
    /// Another program uses the port. The flag with another port.
    PortInUse {
        another: String,
        port: u16,
    },
    /// Ports below 1024 need a right. The flag with a port that needs none.
    NotAllowed {
        another: String,
    },
    /// No network interface of this machine has the address.
    NoSuchAddress,
    None,
}

impl Listeners {
    /// Listens where the configuration says.
    ///
    /// # Errors
    /// With the address that cannot be had, and what to do.
    pub fn bind(config: &Config) -> Result<Self, ListenError> {
        let bind = |flag, address: SocketAddr| {
            listen(address).map_err(|source| {
                let advice = Advice::on(&source, flag, address, config.mode);
                ListenError { flag, address, source, advice }
            })
        };
        let public = bind("listen", config.listen)?;
        let ops = config.ops_listen.map(|address| bind("ops-listen", address)).transpose()?;
        Ok(Self { public, ops })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket2::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait until the old connections are forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections that wait to be accepted. When a proxy dies, all of its readers come at once; the
/// standard library's 128 would make most of them wait for a retry of a second or more. (The kernel
/// cuts it to `somaxconn`, 4,096 by default.)
const BACKLOG: i32 = 4_096;

/// Added to a port that needs a right, as in 8080 for 80.
const ABOVE_PRIVILEGED: u16 = 8_000;

impl Advice {
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
        let (address, source) = (address.parse().unwrap(), io::Error::from(kind));
        let advice = Advice::on(&source, flag, address, mode);
        ListenError { flag, address, source, advice }.to_string()
    }

    #[test]
    fn each_way_out_fits_what_was_given() {
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
        for (kind, flag, address, mode, way_out) in [
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
            assert!(text.starts_with(&start) && text.contains(way_out), "{text}");
        }
    }
}
