//! The settings: each option that has a variable of its own can also be set in a file. Which there are, how they are
//! called and what they may be is read from the definitions of the commands, so that no list is written a second time.
//!
//! An option on the command line wins over its variable, that over the file, and that over the default: the file's
//! settings are put on the command line where neither of the others is, and are then read as all options are.

mod file;
mod line;
pub(super) mod show;

use std::{
    any::TypeId,
    env,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, Command, Id};

pub(super) use self::{
    file::File,
    line::{Line, with_file},
};

/// The option that names the file, and its variable.
const CONFIG: &str = "config";
const CONFIG_VARIABLE: &str = "HOLDFAST_CONFIG";
/// What the variables of settings begin with. (That of `--by` is everybody's USER.)
const PREFIX: &str = "HOLDFAST_";
/// Options that are settings of the file alone: a variable that was left in a shell would contradict other options.
const FILE_ALONE: [&str; 1] = ["format"];

/// What a setting is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `"text"`.
    Text,
    /// `16`, or `0.5` where the option takes that.
    Number,
    /// `true` or `false`.
    Switch,
}

/// An option that can be set in the file.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// Its name in the file.
    pub(super) name: String,
    /// Its variable; none of an option that the file alone sets.
    pub(super) variable: Option<String>,
    /// What it may be.
    pub(super) kind: Kind,
    /// Whether it holds a secret: then it is set in no file that holds other things too.
    pub(super) is_secret: bool,
    /// The option, as its command defines it.
    pub(super) arg: Arg,
    /// The options of its command that cannot be given together with it.
    pub(super) excluded: Vec<Id>,
}

impl Setting {
    /// An option of a command as a setting, if it is one.
    pub(super) fn of(command: &Command, arg: &Arg) -> Option<Self> {
        let long = arg.get_long()?;
        let variable = arg.get_env().and_then(|name| name.to_str());
        let variable = variable.filter(|name| name.starts_with(PREFIX)).map(str::to_owned);
        if long == CONFIG || variable.is_none() && !FILE_ALONE.contains(&long) {
            return None;
        }
        let name = match variable.as_deref().and_then(|variable| variable.strip_prefix(PREFIX)) {
            Some(rest) => rest.to_lowercase().replace('_', "-"),
            None => long.to_owned(),
        };
        let is_secret = arg.is_hide_env_values_set();
        let excluded = command.get_arg_conflicts_with(arg).into_iter();
        let excluded = excluded.map(|other| other.get_id().clone()).collect();
        let kind = kind(arg);
        Some(Self { name, variable, kind, is_secret, arg: arg.clone(), excluded })
    }

    /// Whether the environment has it, or the secret that its file would hold.
    fn is_in_environment(&self) -> bool {
        let Some(variable) = &self.variable else { return false };
        let secret = variable.strip_suffix("_FILE").and_then(env::var_os);
        env::var_os(variable).is_some() || secret.is_some_and(|secret| !secret.is_empty())
    }
}

/// The settings of one command.
pub(super) fn of_command(command: &Command) -> impl Iterator<Item = Setting> + '_ {
    command.get_arguments().filter_map(|arg| Setting::of(command, arg))
}

/// The settings of all commands, each once, in the order of the commands.
pub(super) fn all(root: &Command) -> Vec<Setting> {
    fn add(command: &Command, found: &mut Vec<Setting>) {
        for setting in of_command(command) {
            if found.iter().all(|other| other.name != setting.name) {
                found.push(setting);
            }
        }
        command.get_subcommands().for_each(|inner| add(inner, found));
    }
    let mut found = Vec::new();
    add(root, &mut found);
    found
}

/// Gives `--config` to each command that has a setting, and to the program: [`with_file`] puts it behind the command.
pub(super) fn with_config_option(root: Command) -> Command {
    to_commands(root).arg(config_option())
}

fn to_commands(command: Command) -> Command {
    let command = command.mut_subcommands(to_commands);
    if command.has_subcommands() || of_command(&command).next().is_none() {
        return command;
    }
    command.arg(config_option())
}

fn config_option() -> Arg {
    Arg::new(CONFIG)
        .long(CONFIG)
        .env(CONFIG_VARIABLE)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help(
            "A file with settings, in TOML: NAME = VALUE, where NAME is an option's without --. Options and variables \
             win over it",
        )
}

fn kind(arg: &Arg) -> Kind {
    let is = |id: TypeId| arg.get_value_parser().type_id() == id;
    let numbers = [
        TypeId::of::<u16>(),
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<i32>(),
        TypeId::of::<i64>(),
        TypeId::of::<f64>(),
    ];
    if is(TypeId::of::<bool>()) || matches!(arg.get_action(), ArgAction::SetTrue) {
        Kind::Switch
    } else if numbers.into_iter().any(is) {
        Kind::Number
    } else {
        Kind::Text
    }
}

/// A file's name for people.
fn shown(path: &Path) -> String {
    super::shared::output::printable(&path.display().to_string())
}

#[cfg(test)]
mod tests;
