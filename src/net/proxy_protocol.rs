//! PROXY protocol: a proxy of TCP connections sends the client's address in a header before the
//! client's bytes ([HAProxy's
//! specification](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), versions 1 and 2).

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use ppp::{v1, v2};
use prometheus::IntCounter;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

use crate::telemetry::throttle::LogThrottle;

/// Reader of the PROXY protocol header with which every connection must begin.
#[derive(Debug, Clone)]
pub(crate) struct ProxyProtocol {
    /// Counter of the connections that were refused.
    refused: IntCounter,
    log_throttle: Arc<LogThrottle>,
}

/// Error for first bytes of a connection that are not a valid header. A header is required: the
/// specification forbids detecting whether there is one, since then any client could send its own
/// (section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum ProxyHeaderError {
    #[error("begins without a PROXY protocol header; the proxy in front must send one")]
    Missing,
    #[error("begins with a malformed PROXY protocol header")]
    Malformed,
    #[error("begins with a PROXY protocol header over 107 (version 1) or 536 bytes (version 2)")]
    TooLong,
}

/// Result of parsing the first bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// The bytes belong to a header that is not complete yet.
    Incomplete,
    /// A header of `len` bytes. `source` is the client's address. `None` when the proxy does not
    /// send it, and for a connection of the proxy itself, such as its health check.
    Complete { len: usize, source: Option<SocketAddr> },
}

/// Length of the longest header of version 1, its line end included (section 2.1).
const V1_MAX_BYTES: usize = 107;
/// Length of the longest header of version 2 that is accepted. The format allows 64 KiB. 536 bytes
/// fit in one TCP segment on any network (section 2). Addresses take 36 of them, and the additions
/// of cloud providers some 20.
const V2_MAX_BYTES: usize = 536;
/// Length of the fixed part of version 2: signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;
/// Byte with version 2 and the command LOCAL, for connections of the proxy itself.
const V2_LOCAL: u8 = 0x20;

impl ProxyProtocol {
    /// Creates a reader that counts refused connections in `refused`.
    pub(crate) fn new(refused: IntCounter) -> Self {
        Self { refused, log_throttle: Arc::default() }
    }

    /// Reads the header and no byte after it: the next bytes are TLS or HTTP. Returns the address
    /// of the client, if the proxy sends it.
    ///
    /// # Errors
    /// Fails when there is no valid header, or when the connection ends within the header.
    pub(crate) async fn read_source(&self, io: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
        let mut first = [0; V2_MAX_BYTES];
        let mut read = 0;
        loop {
            let peeked = io.peek(first.get_mut(read..).unwrap_or_default()).await?;
            if peeked == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let available = read + peeked;
            let parsed = parse(first.get(..available).unwrap_or_default());
            let (end, source) = match parsed.map_err(|err| self.refuse(err, io))? {
                Header::Incomplete => (available, None),
                Header::Complete { len, source } => (len, Some(source)),
            };
            io.read_exact(first.get_mut(read..end).unwrap_or_default()).await?;
            read = end;
            if let Some(source) = source {
                return Ok(source);
            }
        }
    }

    /// Counts and logs a refused connection. The log is throttled, since all connections of a proxy
    /// that sends no headers are refused.
    fn refuse(&self, err: ProxyHeaderError, io: &TcpStream) -> io::Error {
        self.refused.inc();
        if let Some(unlogged) = self.log_throttle.log(Instant::now()) {
            let peer = io.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!(peer, unlogged, "--proxy-protocol: a connection {err}");
        }
        io::Error::new(io::ErrorKind::InvalidData, err)
    }
}

/// Parses the first bytes of a connection, which may continue after the header.
fn parse(first: &[u8]) -> Result<Header, ProxyHeaderError> {
    // True also when fewer bytes than the prefix have arrived and all of them match.
    let begins = |prefix: &[u8]| first.iter().zip(prefix).all(|(one, other)| one == other);
    if begins(v2::PROTOCOL_PREFIX) {
        parse_v2(first)
    } else if begins(v1::PROTOCOL_PREFIX.as_bytes()) {
        parse_v1(first)
    } else {
        Err(ProxyHeaderError::Missing)
    }
}

/// Parses a header of version 1, one line. The parser of `ppp` gets only complete lines: it rejects
/// a line that is cut after its last space as malformed instead of incomplete.
fn parse_v1(first: &[u8]) -> Result<Header, ProxyHeaderError> {
    let line = first.get(..V1_MAX_BYTES).unwrap_or(first);
    let Some(end) = memchr::memchr(b'\n', line) else {
        return if line.len() < V1_MAX_BYTES {
            Ok(Header::Incomplete)
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
    Ok(Header::Complete { len: line.len(), source })
}

/// Parses a header of version 2, which is binary.
fn parse_v2(first: &[u8]) -> Result<Header, ProxyHeaderError> {
    let Some(fixed) = first.first_chunk::<V2_FIXED_BYTES>() else { return Ok(Header::Incomplete) };
    let [.., command, _family, high, low] = *fixed;
    let len = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if V2_MAX_BYTES < len {
        return Err(ProxyHeaderError::TooLong);
    }
    let Some(header) = first.get(..len) else { return Ok(Header::Incomplete) };
    if command == V2_LOCAL {
        // "the receiver must ... discard the protocol block including the family" (section 2.2).
        return Ok(Header::Complete { len, source: None });
    }
    let header = v2::Header::try_from(header).map_err(|_| ProxyHeaderError::Malformed)?;
    let source = match header.addresses {
        v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    };
    Ok(Header::Complete { len, source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let len = u16::try_from(block.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[command, family], &len, block].concat()
    }

    /// Returns the source of a complete header, or "none" if it has no source.
    fn source_of(header: &[u8]) -> Option<String> {
        match parse(header) {
            Ok(Header::Complete { len, source }) if len == header.len() => {
                Some(source.map_or_else(|| "none".to_owned(), |source| source.to_string()))
            }
            _ => None,
        }
    }

    #[test]
    fn valid_headers_are_parsed_and_parts_of_them_are_incomplete() {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0xdc, 4, 1, 187];
        let v6 = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
        let v6 = [&v6[..], &[0xdc, 4, 1, 187]].concat();
        let longest = ["ffff"; 8].join(":");
        let longest = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
        assert_eq!(longest.len(), V1_MAX_BYTES, "the specification's worst case");
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
            (v2(0x20, 0xff, &[7; V2_MAX_BYTES - V2_FIXED_BYTES]), "none"),
        ];
        for (header, source) in &table {
            assert_eq!(source_of(header).as_deref(), Some(*source), "{header:?}");
            for len in 1..header.len() {
                let part = parse(&header[..len]);
                assert_eq!(part, Ok(Header::Incomplete), "{len} bytes of {header:?}");
            }
            let followed = parse(&[header, &b"GET / HTTP/1.1\r\n\r\n"[..]].concat());
            assert_eq!(followed, parse(header), "bytes after the header do not change it");
        }
    }

    #[test]
    fn invalid_headers_are_refused() {
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
            (v2(0x21, 0x11, &[0; V2_MAX_BYTES - V2_FIXED_BYTES + 1])[..16].into(), TooLong),
        ];
        for (header, err) in table {
            assert_eq!(parse(&header), Err(err), "{header:?}");
        }
    }

    proptest! {
        /// Checks that no input causes a panic, and that no input of the largest length is
        /// incomplete.
        #[test]
        fn any_bytes_are_parsed(kind in 0..3_usize, rest: Vec<u8>) {
            let prefix: &[u8] = [&b""[..], b"PROXY ", v2::PROTOCOL_PREFIX][kind];
            let mut bytes = [prefix, &rest].concat();
            bytes.resize(V2_MAX_BYTES, 7);
            prop_assert_ne!(parse(&bytes), Ok(Header::Incomplete));
        }
    }
}
