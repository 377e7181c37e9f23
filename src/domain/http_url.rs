//! URLs that requests are sent to.

use url::{Host, Url};

/// Reads a URL that requests go to: `http` only to this machine, unless that is allowed. The error is what is wrong with it.
pub fn http_url(text: &str, allow_plain: bool) -> Result<Url, &'static str> {
    let Ok(url) = Url::parse(text) else { return Err("is not a URL") };
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("must be a URL of http or https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path, without '?' or '#'");
    }
    if url.scheme() == "http" && !allow_plain && !is_this_machine(&url) {
        return Err("is plain http to another machine: use https, or say allow_plain = true");
    }
    Ok(url)
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_this_machine_unless_more_is_allowed() {
        for good in
            ["https://a.example/x", "http://localhost:1/", "http://127.0.0.9", "http://[::1]/"]
        {
            assert!(http_url(good, false).is_ok(), "{good}");
        }
        assert!(http_url("http://a.example/x", false).is_err());
        assert!(http_url("http://a.example/x", true).is_ok());
    }

    #[test]
    fn a_url_with_more_than_a_place_is_refused() {
        for bad in [
            "",
            "a.example",
            "ftp://a.example",
            "data:x",
            "https://u@a.example",
            "https://:p@a.example",
            "https://a.example/?q",
            "https://a.example/#f",
        ] {
            assert!(http_url(bad, true).is_err(), "{bad}");
        }
    }
}
