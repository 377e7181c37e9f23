//! Logins: who may have cards redeemed to an account.

use std::{collections::HashMap, path::Path};

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// The passwords, by username.
pub(super) struct Logins {
    /// `None`: every login is good.
    listed: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct Line {
    username: String,
    password: String,
}

impl Logins {
    /// Reads the file of logins, if there is one.
    pub(super) fn open(file: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self { listed: file.map(read).transpose()? })
    }

    /// Whether it is the user's password.
    pub(super) fn accept(&self, username: &str, password: &str) -> bool {
        let Some(listed) = &self.listed else { return true };
        listed.get(username).is_some_and(|good| good == password)
    }
}

fn read(file: &Path) -> anyhow::Result<HashMap<String, String>> {
    let mut reader = csv::Reader::from_path(file)
        .with_context(|| format!("the file of accounts {} cannot be read", file.display()))?;
    let mut listed = HashMap::new();
    for (index, line) in reader.deserialize::<Line>().enumerate() {
        // The number alone: an error of the reader's own may quote the password.
        let position = || format!("account {} of {}", index + 1, file.display());
        let Ok(line) = line else { bail!("{} cannot be read", position()) };
        if listed.insert(line.username, line.password).is_some() {
            bail!("{} is listed twice", position());
        }
    }
    Ok(listed)
}
