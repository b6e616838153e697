//! Addresses at which `healthcheck` can ask a gateway.

use std::net::SocketAddr;

use crate::config::{ConfigError, Mode, Texts, parse::Values};

/// Addresses that answer `/readyz`, and how they are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// Address of the public listener.
    pub listen: SocketAddr,
    /// Address of the ops listener. `None` if it is off.
    pub ops_listen: Option<SocketAddr>,
    /// True if the public listener accepts TLS only.
    pub is_tls: bool,
    /// True if every public connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
}

impl Endpoints {
    /// Reads the addresses from a gateway's texts, as
    /// [`Config::from_texts`](crate::config::Config::from_texts) does. Texts of other flags may be
    /// missing or wrong.
    ///
    /// # Errors
    /// Returns all errors found in the texts of the addresses.
    pub fn from_texts(mode: Mode, texts: &Texts, port: Option<&str>) -> Result<Self, ConfigError> {
        let mut values = Values::new(mode, texts);
        let endpoints = Self {
            listen: values.listen(port),
            ops_listen: values.ops_listen(),
            is_tls: values.tls().is_some(),
            proxy_protocol: values.choice("proxy-protocol", &[("off", false), ("on", true)]),
        };
        values.finish(endpoints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(mode: Mode, given: &[(&'static str, &str)]) -> Result<Endpoints, String> {
        let texts = given.iter().map(|(flag, text)| (*flag, vec![(*text).to_owned()]));
        Endpoints::from_texts(mode, &texts.collect(), None).map_err(|bad| bad.to_string())
    }

    #[test]
    fn a_port_alone_keeps_the_default_address() {
        for (mode, text, address) in [
            (Mode::Serve, "3000", "0.0.0.0:3000"),
            (Mode::Serve, ":3000", "0.0.0.0:3000"),
            (Mode::Serve, "localhost:3000", "127.0.0.1:3000"),
            (Mode::Serve, "[::]:3000", "[::]:3000"),
            (Mode::Serve, "10.0.0.7:3000", "10.0.0.7:3000"),
            (Mode::Dev, "3000", "127.0.0.1:3000"),
            (Mode::Dev, ":3000", "127.0.0.1:3000"),
            (Mode::Dev, "localhost:3000", "127.0.0.1:3000"),
        ] {
            let read = endpoints(mode, &[("listen", text), ("ops-listen", text)]).unwrap();
            assert_eq!(read.listen.to_string(), address, "{text}");
            assert_eq!(read.ops_listen, Some(read.listen), "{text}");
        }
        for text in ["nowhere", "65536", ":", "", "example.com:80", "::1", "1.2.3.4", "-1"] {
            let problem = endpoints(Mode::Serve, &[("listen", text)]).unwrap_err();
            assert!(problem.contains("localhost:8080 or [::]:8080"), "{text}: {problem}");
        }
    }

    #[test]
    fn port_sets_the_port_of_the_default_address() {
        let listen = |mode, given: &[(&'static str, &str)]| {
            endpoints(mode, given).map(|endpoints| endpoints.listen.to_string())
        };
        assert_eq!(listen(Mode::Dev, &[("port", "3000")]).unwrap(), "127.0.0.1:3000");
        assert_eq!(listen(Mode::Serve, &[("port", "3000")]).unwrap(), "0.0.0.0:3000");
        let both = listen(Mode::Serve, &[("port", "3000"), ("listen", "127.0.0.1:4000")]);
        let problem = both.unwrap_err();
        for named in ["--port", "\"3000\"", "--listen \"127.0.0.1:4000\"", "only one"] {
            assert!(problem.contains(named), "{problem}");
        }
        let none = listen(Mode::Serve, &[("port", "http")]).unwrap_err();
        assert_eq!(none, "--port: \"http\" is not a port from 0 to 65535");
        let of_kubernetes = listen(Mode::Serve, &[("port", "tcp://10.0.0.1:80")]).unwrap_err();
        assert!(of_kubernetes.contains("enableServiceLinks: false"), "{of_kubernetes}");
    }

    #[test]
    fn the_flag_for_the_port_wins_over_the_platforms_port() {
        let texts = Texts::from([("port", vec!["3000".to_owned()])]);
        let read = Endpoints::from_texts(Mode::Serve, &texts, Some("9999")).unwrap();
        assert_eq!(read.listen.port(), 3000);
        let read = Endpoints::from_texts(Mode::Serve, &Texts::new(), Some("9999")).unwrap();
        assert_eq!(read.listen.port(), 9999);
        let problem = Endpoints::from_texts(Mode::Serve, &Texts::new(), Some("http")).unwrap_err();
        assert!(problem.to_string().starts_with("PORT: \"http\""), "{problem}");
    }
}
