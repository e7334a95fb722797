//! Which client a request comes from, for counting wrong guesses. Nothing keeps or logs it.

use std::net::{IpAddr, SocketAddr};

use axum::http::{Extensions, HeaderMap, HeaderValue};
use ipnet::IpNet;

use crate::config::Settings;
use crate::guesses::Client;

/// The header that proxies add to.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Most proxies that a request is followed back through.
const MAX_HOPS: usize = 32;

/// The address at the other end of the connection. The server puts it on every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The client that sent the request of these extensions and headers: the peer, unless that is a trusted proxy, which then says whom it
/// speaks for.
pub fn client_of(extensions: &Extensions, headers: &HeaderMap, settings: &Settings) -> Client {
    let peer = extensions.get::<Peer>().map(|peer| peer.0);
    peer.map_or_else(Client::default, |peer| origin(peer, headers, &settings.trusted_proxies).into())
}

/// The last address on the way back from `peer` that no trusted proxy has. What stands left of it in the header may be
/// anybody's invention, and so may all of it when the peer is not trusted.
fn origin(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut origin = peer.to_canonical();
    // As octets: what a proxy adds to a line counts, however odd the beginning that it was sent.
    let lines: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(|octet| *octet == b',')).take(MAX_HOPS);
    for hop in hops {
        if !is_trusted(origin) {
            break;
        }
        let Some(before) = std::str::from_utf8(hop).ok().and_then(|hop| address(hop.trim())) else { break };
        origin = before;
    }
    origin
}

/// An address as proxies write it: bare, with a port, in brackets.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = || hop.parse::<IpAddr>().ok();
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    bare().or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin_of(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        origin(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(origin_of("192.0.2.1", &["198.51.100.1"], &[]), "192.0.2.1");
        assert_eq!(origin_of("192.0.2.1", &["198.51.100.1"], &["10.0.0.0/8"]), "192.0.2.1");
        assert_eq!(origin_of("10.0.0.1", &["198.51.100.1"], &["10.0.0.0/8"]), "198.51.100.1");
        assert_eq!(origin_of("::ffff:10.0.0.1", &["198.51.100.1"], &["10.0.0.0/8"]), "198.51.100.1");
        assert_eq!(origin_of("::1", &["2001:db8::7"], &["::1/128"]), "2001:db8::7");
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_counts() {
        let trusted = ["10.0.0.0/8"];
        let forged = ["203.0.113.9, 198.51.100.1, 10.0.0.2"];
        assert_eq!(origin_of("10.0.0.1", &forged, &trusted), "198.51.100.1");
        let in_lines = ["203.0.113.9", "198.51.100.1", "10.0.0.2"];
        assert_eq!(origin_of("10.0.0.1", &in_lines, &trusted), "198.51.100.1");
        assert_eq!(origin_of("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &trusted), "10.0.0.3");
        assert_eq!(origin_of("10.0.0.1", &[], &trusted), "10.0.0.1");
    }

    #[test]
    fn odd_octets_hide_nothing_of_what_a_proxy_adds() {
        let trusted = ["10.0.0.0/8"];
        let odd = ["203.0.113.9", "\u{fc}, 198.51.100.1"];
        assert_eq!(origin_of("10.0.0.1", &odd, &trusted), "198.51.100.1");
        assert_eq!(origin_of("10.0.0.1", &["203.0.113.9", "\u{fc}"], &trusted), "10.0.0.1");
    }

    #[test]
    fn addresses_are_read_as_proxies_write_them_and_anything_else_ends_the_way() {
        let trusted = ["10.0.0.0/8"];
        for (written, read) in [
            ("198.51.100.1:4711", "198.51.100.1"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            (" 2001:db8::7 ", "2001:db8::7"),
            ("unknown", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("198.51.100.1, nonsense", "10.0.0.1"),
            ("198.51.100.1, nonsense, 10.0.0.9", "10.0.0.9"),
        ] {
            assert_eq!(origin_of("10.0.0.1", &[written], &trusted), read, "{written}");
        }
    }
}
