//! Reader of the addresses that the gateway listens on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::Mode;
use crate::config::parse::Values;

impl Values<'_> {
    /// Reads an address. A port alone keeps the default address of the mode.
    fn address(&mut self, flag: &str, text: &str) -> Option<SocketAddr> {
        let ip = IpAddr::V4(match self.mode {
            Mode::Dev => Ipv4Addr::LOCALHOST,
            Mode::Serve => Ipv4Addr::UNSPECIFIED,
        });
        let port_of = |text: &str, ip| Some(SocketAddr::new(ip, text.parse().ok()?));
        let address = match text.trim().split_once(':') {
            None => port_of(text.trim(), ip),
            Some(("", port)) => port_of(port, ip),
            Some(("localhost", port)) => port_of(port, IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Some(_) => text.trim().parse().ok(),
        };
        if address.is_none() {
            let form = "Expected a port, as in 8080, or an address and a port, as in \
                        0.0.0.0:8080, localhost:8080 or [::]:8080";
            self.problem(flag, format!("{text:?} is not an address. {form}"));
        }
        address
    }

    /// Reads `--listen`. Without it, the default address gets the port of `--port`, or else
    /// `platform_port`.
    pub(in crate::config) fn listen(&mut self, platform_port: Option<&str>) -> SocketAddr {
        const FLAG: &str = "listen";
        const PORT: &str = "port";
        let fallback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
        let text = self.text(FLAG).unwrap_or_default();
        let mut address = self.address(FLAG, text).unwrap_or(fallback);
        let port = self.given(PORT).filter(|text| !text.is_empty());
        match (self.given(FLAG), port, platform_port) {
            (Some(listen), Some(port), _) => self.problem(
                PORT,
                format!(
                    "{port:?} is given together with --listen {listen:?} (each as a flag or in the \
                     environment). Give only one of the two: --port sets the port alone, --listen \
                     the address and the port"
                ),
            ),
            (None, Some(port), _) => match port.trim().parse() {
                Ok(port) => address.set_port(port),
                // Kubernetes sets STREAM_EVENTS_PORT in pods if a Service is named stream-events.
                Err(_) if port.contains("://") => self.problem(
                    PORT,
                    format!(
                        "{port:?} is not a port. If Kubernetes has set STREAM_EVENTS_PORT for a \
                         Service of this name: write enableServiceLinks: false into the pod's spec"
                    ),
                ),
                Err(_) => self.problem(PORT, format!("{port:?} is not a port from 0 to 65535")),
            },
            (None, None, Some(port)) => match port.trim().parse() {
                Ok(port) => address.set_port(port),
                Err(_) => self.problems.push(format!(
                    "PORT: {port:?} in the environment is not a port from 0 to 65535"
                )),
            },
            (_, None, _) => {}
        }
        if self.mode == Mode::Dev && !address.ip().is_loopback() {
            self.problem(
                FLAG,
                format!(
                    "other machines can reach {address}, and dev checks no tokens. Give a loopback \
                     address, as in 127.0.0.1:{}, or run serve",
                    address.port()
                ),
            );
        }
        address
    }

    pub(in crate::config) fn ops_listen(&mut self) -> Option<SocketAddr> {
        const FLAG: &str = "ops-listen";
        match self.text(FLAG)? {
            "off" => None,
            text => self.address(FLAG, text),
        }
    }
}
