//! Secret keys: several by their ids, and changing to another while servers run.

mod late_credit;
mod race;
mod rotation;
mod secrecy;

use std::{fs, path::PathBuf, process::Command, time::Duration};

use holdfast::{
    app::keys,
    service::rotation::{Progress, Rotated},
};

use crate::support::{secrets::write_secret, world::World};

/// How long servers may take to read a key file. They do so every two seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The key of an id, as a file has it.
fn key(id: u16) -> String {
    format!("{id:04x}").repeat(16)
}

fn key_file(world: &World) -> PathBuf {
    world.args().secret_key_file.clone().unwrap()
}

/// The text of the world's first key, which has no id in its file.
pub(crate) fn first_key(world: &World) -> String {
    fs::read_to_string(key_file(world)).unwrap().trim().to_owned()
}

/// Puts keys into the file of the servers: `first` is what the world began with.
pub(crate) fn write_keys(world: &World, first: &str, ids: &[u16]) {
    let text = |id: &u16| if *id == 1 { first.to_owned() } else { key(*id) };
    let lines: Vec<_> = ids.iter().map(|id| format!("{id}: {}\n", text(id))).collect();
    write_secret(key_file(world), lines.concat());
}

/// The program, without the variables of whoever runs the tests.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    for name in ["HOLDFAST_DATABASE_URL", "HOLDFAST_DATABASE_URL_FILE", "HOLDFAST_SECRET_KEY_FILE"]
    {
        command.env_remove(name);
    }
    command
}

pub(crate) async fn rotate(
    world: &World,
    told: &mut (dyn FnMut(Progress) + Send),
) -> anyhow::Result<Rotated> {
    keys::rotate(&world.db_url.clone().into(), &key_file(world), PATIENCE, "a test", told).await
}
