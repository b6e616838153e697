//! Address of the client of a request, behind trusted proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_http::RequestHead;

/// Returns the address of the client, which limits use as their key. An IPv6 address is reduced to
/// its [`network`] of 64 bits, since one client can easily use all addresses of it. `None` when the
/// address of the peer is unknown.
///
/// Each trusted proxy adds the address of its peer at the end of `X-Forwarded-For`. With N
/// `trusted_proxies`, the client is the Nth entry from the right; entries further left are not
/// trusted, since the client can have sent them. A header with fewer entries did not come through
/// all the proxies: the address of the peer is returned.
pub fn client_address(head: &RequestHead, trusted_proxies: usize) -> Option<IpAddr> {
    let peer = head.peer_addr.map(|peer| peer.ip());
    let forwarded = trusted_proxies.checked_sub(1).and_then(|from_right| {
        let fields: Vec<_> = head.headers().get_all("x-forwarded-for").collect();
        // Split as bytes: entries further left may be invalid text and must not hide this one.
        let entries = fields.iter().rev().flat_map(|field| field.as_bytes().rsplit(|b| *b == b','));
        entries.map(<[u8]>::trim_ascii).nth(from_right).and_then(address)
    });
    forwarded.or(peer).map(network)
}

/// Parses an address with or without a port. Some proxies add the port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?;
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    text.trim_matches(['[', ']']).parse().or_else(|_| with_port()).ok()
}

/// Returns an IPv4 address unchanged, and the first 64 bits of an IPv6 address: a host chooses the
/// other 64 itself ([RFC 4291, section
/// 2.5.1](https://www.rfc-editor.org/rfc/rfc4291#section-2.5.1)).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{HttpMessage as _, test::TestRequest};

    use super::*;

    #[test]
    fn client_is_the_nth_forwarded_entry_from_the_right() {
        for (fields, proxies, expected) in [
            (&["6.6.6.6, 1.2.3.4"][..], 0, "10.0.0.1"),
            (&["6.6.6.6, 1.2.3.4"], 1, "1.2.3.4"),
            (&["6.6.6.6, 1.2.3.4, 35.0.0.1"], 2, "1.2.3.4"),
            (&["6.6.6.6", "1.2.3.4,35.0.0.1"], 2, "1.2.3.4"),
            (&["[2001:db8::1]:443"], 1, "2001:db8::"),
            (&["2001:db8:0:1:2:3:4:5"], 1, "2001:db8:0:1::"),
            (&["::ffff:1.2.3.4"], 1, "1.2.3.4"),
            (&["1.2.3.4:5"], 1, "1.2.3.4"),
            (&["unknown"], 1, "10.0.0.1"),
            (&["9.9.9.9", "\u{ff}, 1.2.3.4"], 1, "1.2.3.4"),
            (&["\u{ff}, 1.2.3.4"], 1, "1.2.3.4"),
            (&["9.9.9.9, \u{ff}"], 1, "10.0.0.1"),
            (&["1.2.3.4"], 2, "10.0.0.1"),
            (&[], 1, "10.0.0.1"),
        ] {
            let mut request = TestRequest::default().peer_addr(([10, 0, 0, 1], 1).into());
            for field in fields {
                let bytes: Vec<u8> = field.chars().map(|c| u8::try_from(c).unwrap()).collect();
                let value = actix_http::header::HeaderValue::from_bytes(&bytes).unwrap();
                request = request.append_header(("X-Forwarded-For", value));
            }
            let request = request.to_request();
            assert_eq!(request.headers().get_all("x-forwarded-for").count(), fields.len());
            let found = client_address(request.head(), proxies).unwrap();
            assert_eq!(found.to_string(), expected, "{fields:?} {proxies}");
        }
    }
}
