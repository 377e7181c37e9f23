//! The token that a command shows to the server.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::{app::TOKEN_FILE, secret_file};

/// Whose token to show.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TokenArgs {
    /// A file with the token to show to the server. Without one: HOLDFAST_TOKEN, or for a server of this machine
    /// admin.token in the data directory.
    #[arg(long, env = "HOLDFAST_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// Where a server of this machine keeps its data: its admin.token is shown, where no other is given.
    #[arg(long, env = "HOLDFAST_DATA_DIR", default_value = "holdfast-data")]
    data_dir: PathBuf,
}

/// What is shown with each call: a token, or nothing.
#[derive(Clone, Default)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bearer({})", if self.0.is_some() { "hidden" } else { "none" })
    }
}

impl TokenArgs {
    /// The file, where one is given.
    pub(super) fn file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    /// Where a server of this machine keeps its data.
    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The token for the server at `url`.
    pub(crate) fn bearer(&self, url: &str) -> anyhow::Result<Bearer> {
        if let Some(file) = &self.token_file {
            return Bearer::from_file(file);
        }
        if let Some(token) = env::var("HOLDFAST_TOKEN").ok().filter(|token| !token.is_empty()) {
            return Bearer::of(&token).context("HOLDFAST_TOKEN holds no token");
        }
        let file = self.data_dir.join(TOKEN_FILE);
        // One that this user may not read is another's.
        match is_of_this_machine(url) && fs::File::open(&file).is_ok() {
            true => Bearer::from_file(&file),
            false => Ok(Bearer::default()),
        }
    }
}

impl Bearer {
    /// The token in a file.
    pub(crate) fn from_file(file: &Path) -> anyhow::Result<Self> {
        let text = secret_file::read(file, "the token's file")?;
        Self::of(&text).with_context(|| format!("{} holds no token", file.display()))
    }

    fn of(token: &str) -> anyhow::Result<Self> {
        let token = token.trim();
        anyhow::ensure!(!token.is_empty(), "it is empty");
        // The error of the library is left out: it is of the text.
        let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
        let mut value = value.ok().context("it has characters that no token has")?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Whether a URL is of a server that only this machine reaches.
fn is_of_this_machine(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_this_machine_is_shown_to_its_own_servers_alone() {
        for own in
            ["http://127.0.0.1:1", "https://localhost:5", "http://[::1]:7", "http://127.9.9.9"]
        {
            assert!(is_of_this_machine(own), "{own}");
        }
        for other in ["http://10.0.0.1:1", "http://localhost.example", "http://[::]:7", "x"] {
            assert!(!is_of_this_machine(other), "{other}");
        }
    }

    #[test]
    fn a_token_never_prints_and_a_bad_one_is_not_told() {
        let bearer = Bearer::of(" hf_secret\n").unwrap();
        assert!(!format!("{bearer:?}").contains("secret"));
        let request = Bearer::of("hf_secret").unwrap().call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer hf_secret");
        for bad in ["", " ", "hf_sec\nret", "hf_\u{7f}secret"] {
            let error = format!("{:#}", Bearer::of(bad).unwrap_err());
            assert!(!error.contains("sec"), "{error}");
        }
    }
}
