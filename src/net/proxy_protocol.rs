//! The PROXY protocol: a proxy that passes bytes on says first whose they are ([HAProxy's
//! specification](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), versions 1 and 2).

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use ppp::{v1, v2};
use prometheus::IntCounter;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::telemetry::throttle::LogThrottle;

/// Reads the header that every connection begins with.
#[derive(Debug, Clone)]
pub struct ProxyProtocol {
    refused: IntCounter,
    burst: Arc<LogThrottle>,
}

/// Why a connection's first bytes are no header. Nothing is guessed: the specification forbids to
/// find out whether there is one, since then any client could bring its own (section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum ProxyHeaderError {
    #[error("begins without a PROXY protocol header")]
    Missing,
    #[error("begins with a malformed PROXY protocol header")]
    Malformed,
    #[error("begins with a PROXY protocol header over 107 (version 1) or 536 bytes (version 2)")]
    TooLong,
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// All of them belong to a header that goes on.
    Part,
    /// A header of so many bytes. Without a source the proxy speaks for itself (its health check),
    /// or does not say.
    Whole { len: usize, source: Option<SocketAddr> },
}

/// Version 1 is a line of at most so many bytes, its end included (section 2.1).
const LINE_MAX_BYTES: usize = 107;
/// Version 2 could have 64 KiB. 536 bytes go in one segment of TCP on any network (section 2); of
/// them addresses take 36, and cloud providers' additions some 20.
const HEADER_MAX_BYTES: usize = 536;
/// What version 2 has before its addresses: signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
/// Version 2, and the command of a proxy that speaks for itself.
const LOCAL: u8 = 0x20;

impl ProxyProtocol {
    /// Counts in `refused` the connections that it ends.
    pub fn new(refused: IntCounter) -> Self {
        Self { refused, burst: Arc::default() }
    }

    /// Takes the header off the connection, and not one byte more: what follows is for TLS or HTTP.
    /// Returns the address of the client, if the proxy says it.
    ///
    /// # Errors
    /// When there is no header, or the connection ends before it does.
    pub async fn read_source(&self, io: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
        let mut first = [0; HEADER_MAX_BYTES];
        let mut taken = 0;
        loop {
            let (seen, room) = first.split_at_mut(taken);
            let peeked = io.peek(room).await?;
            if peeked == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let seen_len = seen.len() + peeked;
            let looked = look(first.get(..seen_len).unwrap_or_default());
            let (end, source) = match looked.map_err(|bad| self.refuse(bad, io))? {
                Seen::Part => (seen_len, None),
                Seen::Whole { len, source } => (len, Some(source)),
            };
            io.read_exact(first.get_mut(taken..end).unwrap_or_default()).await?;
            taken = end;
            if let Some(source) = source {
                return Ok(source);
            }
        }
    }

    /// A proxy that does not send headers has all of its connections ended: one line says so.
    fn refuse(&self, bad: ProxyHeaderError, io: &TcpStream) -> io::Error {
        self.refused.inc();
        if let Some(unlogged) = self.burst.log(Instant::now()) {
            let peer = io.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!(peer, unlogged, "--proxy-protocol: a connection {bad}");
        }
        io::Error::new(io::ErrorKind::InvalidData, bad)
    }
}

fn look(first: &[u8]) -> Result<Seen, ProxyHeaderError> {
    let begins = |with: &[u8]| first.iter().zip(with).all(|(one, other)| one == other);
    if begins(v2::PROTOCOL_PREFIX) {
        look_v2(first)
    } else if begins(v1::PROTOCOL_PREFIX.as_bytes()) {
        look_v1(first)
    } else {
        Err(ProxyHeaderError::Missing)
    }
}

/// The line is given to the parser whole: of one that was cut behind its last space it would say
/// that it is malformed, and not that it goes on.
fn look_v1(first: &[u8]) -> Result<Seen, ProxyHeaderError> {
    let line = first.get(..LINE_MAX_BYTES).unwrap_or(first);
    let Some(end) = memchr::memchr(b'\n', line) else {
        return if line.len() < LINE_MAX_BYTES {
            Ok(Seen::Part)
        } else {
            Err(ProxyHeaderError::TooLong)
        };
    };
    let line = line.get(..=end).unwrap_or_default();
    let header = v1::Header::try_from(line).map_err(|_| ProxyHeaderError::Malformed)?;
    let source = match header.addresses {
        v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Unknown => None,
    };
    Ok(Seen::Whole { len: line.len(), source })
}

fn look_v2(first: &[u8]) -> Result<Seen, ProxyHeaderError> {
    let Some(fixed) = first.first_chunk::<FIXED_BYTES>() else { return Ok(Seen::Part) };
    let [.., command, _family, high, low] = *fixed;
    let len = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if HEADER_MAX_BYTES < len {
        return Err(ProxyHeaderError::TooLong);
    }
    let Some(header) = first.get(..len) else { return Ok(Seen::Part) };
    if command == LOCAL {
        // "the receiver must ... discard the protocol block including the family" (section 2.2).
        return Ok(Seen::Whole { len, source: None });
    }
    let header = v2::Header::try_from(header).map_err(|_| ProxyHeaderError::Malformed)?;
    let source = match header.addresses {
        v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    };
    Ok(Seen::Whole { len, source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let len = u16::try_from(block.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[command, family], &len, block].concat()
    }

    fn whole(header: &[u8]) -> Option<String> {
        match look(header) {
            Ok(Seen::Whole { len, source }) if len == header.len() => {
                Some(source.map_or_else(|| "none".to_owned(), |source| source.to_string()))
            }
            _ => None,
        }
    }

    #[test]
    fn every_kind_of_header_is_read_and_any_part_of_it_goes_on() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0xdc, 4, 1, 187];
        let v6 = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
        let v6 = [&v6[..], &[0xdc, 4, 1, 187]].concat();
        let longest = ["ffff"; 8].join(":");
        let longest = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
        assert_eq!(longest.len(), LINE_MAX_BYTES, "the specification's worst case");
        let table: [(Vec<u8>, &str); 11] = [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n".into(), "192.0.2.1:56324"),
            (b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n".into(), "[2001:db8::1]:56324"),
            (b"PROXY UNKNOWN\r\n".into(), "none"),
            (longest.into(), "none"),
            (v2(0x21, 0x11, &v4), "192.0.2.1:56324"),
            (v2(0x21, 0x21, &v6), "[2001:db8::1]:56324"),
            (v2(0x21, 0x11, &[&v4[..], &[0xea, 0, 2, 1, 2]].concat()), "192.0.2.1:56324"),
            (v2(0x21, 0x31, &[0; 216]), "none"),
            (v2(0x21, 0x00, &[]), "none"),
            (v2(0x20, 0x00, &[]), "none"),
            (v2(0x20, 0xff, &[7; HEADER_MAX_BYTES - FIXED_BYTES]), "none"),
        ];
        for (header, source) in &table {
            assert_eq!(whole(header).as_deref(), Some(*source), "{header:?}");
            for len in 1..header.len() {
                assert_eq!(look(&header[..len]), Ok(Seen::Part), "{len} bytes of {header:?}");
            }
            let followed = look(&[header, &b"GET / HTTP/1.1\r\n\r\n"[..]].concat());
            assert_eq!(followed, look(header), "what follows is none of it");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        use ProxyHeaderError::{Malformed, Missing, TooLong};
        let table: [(Vec<u8>, ProxyHeaderError); 12] = [
            (b"GET /events HTTP/1.1\r\n\r\n".into(), Missing),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), Missing),
            (vec![0x16, 3, 1], Missing),
            (b"\r\n\r\n\0\r\nQUIT\r".into(), Missing),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\n".into(), Malformed),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 99999\r\n".into(), Malformed),
            (b"PROXY TCP4 2001:db8::1 ::1 56324 443\r\n".into(), Malformed),
            (b"PROXYTCP4 192.0.2.1 10.0.0.1 56324 443\r\n".into(), Malformed),
            ([&b"PROXY "[..], &[b'x'; 101]].concat(), TooLong),
            (v2(0x11, 0x11, &[0; 12]), Malformed),
            (v2(0x21, 0x11, &[0; 11]), Malformed),
            (v2(0x21, 0x11, &[0; HEADER_MAX_BYTES - FIXED_BYTES + 1])[..16].into(), TooLong),
        ];
        for (header, why) in table {
            assert_eq!(look(&header), Err(why), "{header:?}");
        }
    }

    proptest! {
        /// Nothing from outside panics, and what goes on is never as long as the limit.
        #[test]
        fn any_bytes_are_looked_at(kind in 0..3_usize, rest: Vec<u8>) {
            let begin: &[u8] = [&b""[..], b"PROXY ", v2::PROTOCOL_PREFIX][kind];
            let mut bytes = [begin, &rest].concat();
            bytes.resize(HEADER_MAX_BYTES, 7);
            prop_assert_ne!(look(&bytes), Ok(Seen::Part));
        }
    }
}
