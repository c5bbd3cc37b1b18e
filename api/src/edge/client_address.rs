use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, header};

/// The address of the client of a request: of its connection, or with proxies in front the one that the outermost of
/// these has seen. What a client itself claims stands before that, and is not believed.
pub fn client_address(headers: &HeaderMap, peer: IpAddr, trusted_proxy_hops: u32) -> IpAddr {
    let Some(behind) = trusted_proxy_hops.checked_sub(1) else { return peer };
    let behind = behind as usize;
    let forwarded = |name: &str, separators: &[char], address: fn(&str) -> Option<IpAddr>| {
        let lists: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        let hops: Vec<&str> = lists.iter().flat_map(|list| list.split(separators)).collect();
        // Fewer hops than trusted proxies: all were added by them.
        let hop = hops.len().saturating_sub(behind + 1);
        address(hops.get(hop)?)
    };
    forwarded(header::FORWARDED.as_str(), &[','], forwarded_for)
        .or_else(|| forwarded("x-forwarded-for", &[','], address))
        .unwrap_or(peer)
}

/// The `for` of an element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pair = element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })?;
    address(pair.trim().trim_matches('"'))
}

/// An address, perhaps with a port; of IPv6 perhaps in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let socket = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(socket).or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(fields: &[(&'static str, &'static str)], hops: u32) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        client_address(&headers, IpAddr::from([127, 0, 0, 1]), hops).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_add_is_believed() {
        let fields = [("x-forwarded-for", "198.51.100.1, 192.0.2.1"), ("x-forwarded-for", "10.0.0.1")];
        assert_eq!(client(&fields, 0), "127.0.0.1");
        assert_eq!(client(&fields, 1), "10.0.0.1");
        assert_eq!(client(&fields, 2), "192.0.2.1");
        assert_eq!(client(&fields, 9), "198.51.100.1");
        assert_eq!(client(&[], 1), "127.0.0.1");
        assert_eq!(client(&[("x-forwarded-for", "unknown")], 1), "127.0.0.1");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_says() {
        let of = |value: &'static str| client(&[("forwarded", value)], 1);
        assert_eq!(of("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60");
        assert_eq!(of("for=198.51.100.1, For=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::17");
        assert_eq!(of("for=\"192.0.2.60:8080\""), "192.0.2.60");
        assert_eq!(of("for=_hidden"), "127.0.0.1");
    }
}
