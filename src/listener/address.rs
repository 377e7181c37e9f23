//! The addresses that are listened on, and the warning when others than this machine can reach one.

use std::net::SocketAddr;

/// Reads an address to listen on, such as `127.0.0.1:50051` or `[::1]:50051`.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an IP address and a port, as 127.0.0.1:50051, [::1]:50051 or 0.0.0.0:50051; a name is not taken"
            .to_owned()
    })
}

/// Whether other machines may reach an address: all but those of this machine alone.
pub fn is_reachable(addr: SocketAddr) -> bool {
    !addr.ip().to_canonical().is_loopback()
}

/// Warns when other machines may reach `addr`. `what` is served there, `variable` sets it, and anyone who reaches it
/// can do what `danger` says.
pub fn warn_when_reachable(addr: SocketAddr, what: &str, variable: &str, danger: &str) {
    if is_reachable(addr) {
        tracing::warn!(
            %addr,
            "{what} is served on {addr}, which other machines may reach, and nobody is asked who they are: anyone who \
             reaches it can {danger}. Set {variable} to an address of this machine alone (127.0.0.1, [::1]), or keep \
             others away by a firewall or by a proxy that asks"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_out_of_others_reach() {
        for (addr, reachable) in [
            ("127.0.0.1:1", false),
            ("127.8.9.1:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("[::ffff:0.0.0.0]:1", true),
            ("10.0.0.1:1", true),
            ("192.168.1.5:1", true),
            ("[fe80::1]:1", true),
            ("[2001:db8::1]:1", true),
        ] {
            assert_eq!(is_reachable(addr.parse().unwrap()), reachable, "{addr}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_read_is_answered_with_how_to_write_one() {
        assert_eq!(parse_address("127.0.0.1:5").unwrap().port(), 5);
        for bad in ["localhost:50051", "127.0.0.1", ":50051", "[::1]", "0.0.0.0:70000", ""] {
            let error = parse_address(bad).unwrap_err();
            assert!(error.contains("[::1]:50051"), "{bad}: {error}");
        }
    }
}
