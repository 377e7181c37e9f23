//! The addresses that are listened on, and the warning when others than this machine can reach one.

use std::{fmt, net::SocketAddr};

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

/// What is missing at an address that other machines may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// What is sent can be read and changed on its way.
    pub lacks_tls: bool,
    /// Nobody is asked who they are.
    pub lacks_auth: bool,
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.lacks_tls, self.lacks_auth) {
            (true, true) => "without TLS and without authentication",
            (true, false) => "without TLS",
            _ => "without authentication",
        })
    }
}

impl Exposure {
    /// The settings that put an end to it; those of TLS begin with `prefix`.
    pub fn remedy(&self, prefix: &str) -> String {
        let tls = format!("{prefix}TLS_CERT_FILE and {prefix}TLS_KEY_FILE");
        let auth = "HOLDFAST_AUTH=on";
        match (self.lacks_tls, self.lacks_auth) {
            (true, true) => format!("{tls}, and {auth}"),
            (true, false) => tls,
            _ => auth.to_owned(),
        }
    }
}

/// Checks whether `addr` may be listened on. Answers with what is missing there, if it is to be warned of: `insecure`
/// says that it is allowed.
///
/// # Errors
/// Everything that is missing.
pub fn check_exposure(
    addr: SocketAddr,
    has_tls: bool,
    has_auth: bool,
    insecure: bool,
) -> Result<Option<Exposure>, Exposure> {
    if !is_reachable(addr) || (has_tls && has_auth) {
        return Ok(None);
    }
    let exposure = Exposure { lacks_tls: !has_tls, lacks_auth: !has_auth };
    if insecure { Ok(Some(exposure)) } else { Err(exposure) }
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

    #[test]
    fn the_remedy_names_what_is_missing_and_nothing_else() {
        let remedy = |lacks_tls, lacks_auth| Exposure { lacks_tls, lacks_auth }.remedy("X_");
        assert_eq!(remedy(true, false), "X_TLS_CERT_FILE and X_TLS_KEY_FILE");
        assert_eq!(remedy(false, true), "HOLDFAST_AUTH=on");
        assert_eq!(remedy(true, true), "X_TLS_CERT_FILE and X_TLS_KEY_FILE, and HOLDFAST_AUTH=on");
    }

    #[test]
    fn others_may_reach_nothing_without_tls_and_authentication_unless_that_is_allowed() {
        let check = |addr: &str, tls, auth, insecure| {
            let checked = check_exposure(addr.parse().unwrap(), tls, auth, insecure);
            let told = |exposure: Exposure| exposure.to_string();
            checked.map(|warned| warned.map(told)).map_err(told)
        };
        for insecure in [false, true] {
            assert_eq!(check("127.0.0.1:1", false, false, insecure), Ok(None));
            assert_eq!(check("[::1]:1", false, false, insecure), Ok(None));
            assert_eq!(check("0.0.0.0:1", true, true, insecure), Ok(None));
        }
        for (tls, auth, missing) in [
            (false, false, "without TLS and without authentication"),
            (false, true, "without TLS"),
            (true, false, "without authentication"),
        ] {
            assert_eq!(check("[::]:1", tls, auth, false), Err(missing.to_owned()));
            assert_eq!(check("[::]:1", tls, auth, true), Ok(Some(missing.to_owned())));
        }
    }
}
