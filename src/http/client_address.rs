//! Whose request it is, as far as an address can tell.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_http::RequestHead;

/// The client's address, behind so many proxies. What counts for it counts for all that one client
/// can easily have: an IPv6 network of 64 bits is one address.
///
/// Each of the trusted proxies has added the address that it saw at the end of `X-Forwarded-For`,
/// so the client's stands so many from the right: what is left of that anybody can have written.
/// One that has too few entries did not come through them.
pub fn client_address(head: &RequestHead, trusted_proxies: usize) -> Option<IpAddr> {
    let peer = head.peer_addr.map(|peer| peer.ip());
    let forwarded = trusted_proxies.checked_sub(1).and_then(|from_right| {
        let fields: Vec<_> = head.headers().get_all("x-forwarded-for").collect();
        // By bytes: what is left of the client's may be anything, and must not hide it.
        let entries = fields.iter().rev().flat_map(|field| field.as_bytes().rsplit(|b| *b == b','));
        entries.map(<[u8]>::trim_ascii).nth(from_right).and_then(address)
    });
    forwarded.or(peer).map(network)
}

/// With or without a port, as some proxies write it.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?;
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    text.trim_matches(['[', ']']).parse().or_else(|_| with_port()).ok()
}

/// A host gets 64 bits of IPv6 to choose its address from ([RFC 4291, section
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
    fn the_client_is_counted_from_the_right() {
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
