//! The database URL: as libpq reads it, where sqlx does not.

use std::{str::FromStr as _, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};

use crate::store::StoreError;

/// More hosts are a mistake.
const MAX_HOSTS: usize = 16;

/// What a URL says. It has passwords, and is not printed.
pub(super) struct Parsed {
    /// One for each host, in the URL's order.
    pub(super) hosts: Vec<PgConnectOptions>,
    /// How long one host may take.
    pub(super) connect_timeout: Option<Duration>,
}

/// Reads a URL. The error says what is wrong, and never shows the URL: a password is in it.
pub(super) fn parse(url: &SecretString) -> Result<Parsed, StoreError> {
    read(url.expose_secret()).map_err(StoreError::BadUrl)
}

fn read(url: &str) -> Result<Parsed, String> {
    let (scheme, rest) = url.split_once("://").ok_or(
        "it does not begin with postgres:// (postgres://user:password@host/database)".to_owned(),
    )?;
    if !["postgres", "postgresql"].contains(&scheme) {
        return Err("it does not begin with postgres://".to_owned());
    }
    check_characters(rest)?;
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = before.split_once('/').unwrap_or((before, ""));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let Query { left, hosts: named, ports, connect_timeout } = Query::read(query)?;
    let mut parsed = Parsed { hosts: Vec::new(), connect_timeout };
    let hosts: Vec<_> = hosts.split(',').collect();
    if named.is_none() && ports.is_none() {
        for host in hosts {
            parsed.add(&format!("{scheme}://{user}{host}/{path}"), &left)?;
        }
        return Ok(parsed);
    }
    // As parameters: a list of hosts, and of ports, one for each or one for all.
    let named: Vec<_> = named.map_or_else(|| hosts.into_iter().map(str::to_owned).collect(), list);
    let ports = ports.map(list).unwrap_or_default();
    if ports.len() > 1 && ports.len() != named.len() {
        return Err(format!("it has {} hosts and {} ports", named.len(), ports.len()));
    }
    for (place, host) in named.iter().enumerate() {
        let mut parameters = left.clone();
        parameters.push(format!("host={host}"));
        if let Some(port) = ports.get(place).or(ports.first()).filter(|port| !port.is_empty()) {
            parameters.push(format!("port={port}"));
        }
        parsed.add(&format!("{scheme}://{user}{host}/{path}"), &parameters)?;
    }
    Ok(parsed)
}

fn list(value: String) -> Vec<String> {
    value.split(',').map(str::to_owned).collect()
}

/// Refuses what a password has that would be read as something else, and says what to write instead.
fn check_characters(rest: &str) -> Result<(), String> {
    let encode = "in the user and the password write @ as %40, : as %3A, / as %2F, # as %23, ? as %3F and % as %25";
    if rest.contains('#') {
        return Err(format!("it has a raw #: {encode}"));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    let path = after.split('?').next().unwrap_or_default();
    // A database has no @ in its name that is not encoded. So the password has a / or a ? in it.
    if path.contains('@') || (!authority.contains('@') && after.contains('@')) {
        return Err(format!("it has a raw / or ? before an @: {encode}"));
    }
    if authority.matches('@').count() > 1 {
        return Err(format!("it has more than one @: {encode}"));
    }
    let mut parts = rest.split('%').skip(1);
    if !parts.all(|part| part.len() >= 2 && part.bytes().take(2).all(|b| b.is_ascii_hexdigit())) {
        return Err(format!("it has a % that is not followed by two hexadecimal digits: {encode}"));
    }
    Ok(())
}

/// The parameters of a URL.
#[derive(Default)]
struct Query {
    /// Those that sqlx reads, as they are written.
    left: Vec<String>,
    hosts: Option<String>,
    ports: Option<String>,
    connect_timeout: Option<Duration>,
}

impl Query {
    fn read(query: &str) -> Result<Self, String> {
        let mut read = Self::default();
        for parameter in query.split('&').filter(|it| !it.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "target_session_attrs" => check_attrs(value)?,
                "connect_timeout" => {
                    let seconds: u64 = value
                        .parse()
                        .map_err(|_| "connect_timeout is no number of seconds".to_owned())?;
                    read.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
                }
                // Which of the hosts is asked first is not left to chance: the one that took writes last.
                "load_balance_hosts" => {}
                "host" if value.to_ascii_lowercase().contains("%2c") || value.contains(',') => {
                    read.hosts = Some(value.replace("%2C", ",").replace("%2c", ","));
                }
                "port" if value.to_ascii_lowercase().contains("%2c") || value.contains(',') => {
                    read.ports = Some(value.replace("%2C", ",").replace("%2c", ","));
                }
                _ => read.left.push(parameter.to_owned()),
            }
        }
        // A list of one of them is read with the other, which may be a single one.
        if read.hosts.is_some() && read.ports.is_none() {
            read.ports = read.take("port=");
        }
        if read.ports.is_some() && read.hosts.is_none() {
            read.hosts = read.take("host=");
        }
        Ok(read)
    }

    fn take(&mut self, begins: &str) -> Option<String> {
        let place = self.left.iter().position(|parameter| parameter.starts_with(begins))?;
        Some(self.left.remove(place)[begins.len()..].to_owned())
    }
}

fn check_attrs(value: &str) -> Result<(), String> {
    match value {
        "any" | "read-write" | "primary" => Ok(()),
        "read-only" | "standby" | "prefer-standby" => Err(format!(
            "target_session_attrs={value} asks for a server that takes no writes; use read-write or leave it out"
        )),
        _ => Err("target_session_attrs is none of any, read-write and primary".to_owned()),
    }
}

impl Parsed {
    fn add(&mut self, url: &str, parameters: &[String]) -> Result<(), String> {
        if self.hosts.len() == MAX_HOSTS {
            return Err(format!("it has more than {MAX_HOSTS} hosts"));
        }
        let url = if parameters.is_empty() {
            url.to_owned()
        } else {
            format!("{url}?{}", parameters.join("&"))
        };
        let options = PgConnectOptions::from_str(&url).map_err(|error| match error {
            sqlx::Error::Configuration(error) => error.to_string(),
            error => error.to_string(),
        })?;
        self.hosts.push(options.disable_statement_logging());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> Vec<String> {
        let read = read(url).ok().unwrap();
        read.hosts.iter().map(|it| format!("{}:{}", it.get_host(), it.get_port())).collect()
    }

    #[test]
    fn several_hosts_are_read_as_libpq_reads_them() {
        let url = "postgres://app:secret@one:5433,two,[::1]:5434/db?target_session_attrs=read-write&connect_timeout=2";
        assert_eq!(hosts(url), ["one:5433", "two:5432", "[::1]:5434"]);
        let parsed = read(url).ok().unwrap();
        assert_eq!(parsed.connect_timeout, Some(Duration::from_secs(2)));
        assert!(parsed.hosts.iter().all(|it| it.get_database() == Some("db")));
        assert!(parsed.hosts.iter().all(|it| it.get_username() == "app"));
        assert_eq!(
            hosts("postgres://app@/db?host=one,two&port=5433,5434"),
            ["one:5433", "two:5434"]
        );
        assert_eq!(hosts("postgres://app@/db?host=one%2Ctwo&port=5433"), ["one:5433", "two:5433"]);
        let error = read("postgres://app@/db?host=one,two&port=1,2,3").err().unwrap();
        assert!(error.contains("2 hosts and 3 ports"), "{error}");
    }

    #[test]
    fn a_password_that_is_not_encoded_is_told_and_not_shown() {
        for password in ["hun/ter2", "hun?ter2", "hun#ter2", "hun@ter2", "hun%ter2", "1/hunter2"] {
            for url in [
                format!("postgres://app:{password}@h/db"),
                format!("postgres://app:{password}@h:1,i:2/db?sslmode=disable"),
            ] {
                let error = read(&url).err().unwrap();
                assert!(error.contains("%40") && error.contains("%2F"), "{error}");
                assert!(!error.contains("ter2") && !error.contains("hun"), "{error}");
            }
        }
        assert_eq!(hosts("postgres://app:a%40b%2Fc%23d%3Fe%25@h:7/db"), ["h:7"]);
    }

    #[test]
    fn what_no_server_of_ours_can_be_is_refused() {
        for (url, word) in [
            ("mysql://h/db", "postgres://"),
            ("postgres://h/db?target_session_attrs=standby", "takes no writes"),
            ("postgres://h/db?target_session_attrs=what", "read-write"),
            ("postgres://h/db?connect_timeout=soon", "seconds"),
            ("postgres://h:port/db", "port"),
        ] {
            let error = read(url).err().unwrap_or_else(|| panic!("{url}"));
            assert!(error.contains(word), "{url}: {error}");
        }
        assert_eq!(hosts("postgres://h/db?connect_timeout=0&target_session_attrs=any"), ["h:5432"]);
    }
}
