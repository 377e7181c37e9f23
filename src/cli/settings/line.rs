//! The command line, with what the file sets put where nothing else sets it.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Command, parser::ValueSource};

use super::{CONFIG, CONFIG_VARIABLE, File, Kind, Setting, all, of_command};

/// A command line that is complete.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Line {
    /// Its words, the program's name among them.
    pub(in crate::cli) words: Vec<OsString>,
    /// What was put there, and from which file, for errors.
    pub(in crate::cli) added: Vec<String>,
    /// The file, where one was named.
    pub(in crate::cli) file: Option<PathBuf>,
}

/// Completes a command line. Without a file it stays as it is, and so does one that cannot be read: what is wrong with
/// it is told when it is read next.
///
/// # Errors
/// When the file cannot be read, or anything in it is wrong.
pub(in crate::cli) fn with_file(root: &Command, words: Vec<OsString>) -> anyhow::Result<Line> {
    let words = config_last(root, words);
    let as_it_is = |words| Line { words, ..Line::default() };
    // What the line lacks, the file may have.
    let mut root = root.clone().ignore_errors(true);
    // Options of all commands are with each of them then.
    root.build();
    let Ok(matches) = root.clone().try_get_matches_from(&words) else {
        return Ok(as_it_is(words));
    };
    let Some(found) = find(&root, &matches, &words) else { return Ok(as_it_is(words)) };
    let Some(path) = found.file() else { return Ok(as_it_is(words)) };
    let file = File::read(&path, &all(&root))?;
    let mut added = Vec::new();
    for setting in of_command(found.command).filter(|setting| found.is_free(setting)) {
        if let Some(given) = file.get(&setting.name) {
            added.extend(option(&setting, &given.value));
        }
    }
    let mut words = words;
    words.splice(found.end..found.end, added.iter().map(OsString::from));
    Ok(Line { words, added, file: Some(path) })
}

/// Puts `--config` behind the words that name the command, where it stands before or between them: there no command
/// would take it.
fn config_last(root: &Command, mut words: Vec<OsString>) -> Vec<OsString> {
    let option = format!("--{CONFIG}");
    let (mut command, mut at, mut moved) = (root, 1, Vec::new());
    while let Some(word) = words.get(at).and_then(|word| word.to_str())
        && command.has_subcommands()
    {
        if word == option && at + 1 < words.len() {
            moved.extend(words.drain(at..at + 2));
        } else if word.strip_prefix(&option).is_some_and(|rest| rest.starts_with('=')) {
            moved.push(words.remove(at));
        } else if word.starts_with('-') {
            at += 1;
        } else if let Some(inner) = command.find_subcommand(word) {
            (command, at) = (inner, at + 1);
        } else {
            break;
        }
    }
    words.splice(at..at, moved);
    words
}

/// The command that a line is about.
struct Found<'a> {
    command: &'a Command,
    matches: &'a ArgMatches,
    /// How many words come before its options.
    end: usize,
}

/// Finds the words that name the command, in their order. Nothing before or between them is like one: the options there
/// take no values.
fn find<'a>(root: &'a Command, matches: &'a ArgMatches, words: &[OsString]) -> Option<Found<'a>> {
    let mut found = Found { command: root, matches, end: 1 };
    while let Some((name, inner)) = found.matches.subcommand() {
        let at = words.get(found.end..)?.iter().position(|word| word == name)?;
        let command = found.command.find_subcommand(name)?;
        found = Found { command, matches: inner, end: found.end + at + 1 };
    }
    Some(found)
}

impl Found<'_> {
    /// The file that is named on the line, or else by the variable.
    fn file(&self) -> Option<PathBuf> {
        self.command.get_arguments().find(|arg| arg.get_id() == CONFIG)?;
        let named = self.matches.get_one::<PathBuf>(CONFIG).cloned();
        let named = named.or_else(|| env::var_os(CONFIG_VARIABLE).map(PathBuf::from));
        named.filter(|path| path != Path::new(""))
    }

    /// Whether neither the line nor the environment sets it, or something that cannot be together with it.
    fn is_free(&self, setting: &Setting) -> bool {
        let id = setting.arg.get_id();
        let is_excluded = self.command.get_arguments().any(|other| {
            let excluded = self.command.get_arg_conflicts_with(other);
            self.is_given(other.get_id().as_str()) && excluded.iter().any(|it| it.get_id() == id)
        });
        let excludes = setting.excluded.iter().any(|other| self.is_given(other.as_str()));
        let is_given = self.is_given(id.as_str()) || setting.is_in_environment();
        !(is_given || is_excluded || excludes)
    }

    fn is_given(&self, id: &str) -> bool {
        let source =
            self.matches.try_contains_id(id).ok().and_then(|_| self.matches.value_source(id));
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    }
}

/// A setting as an option. A switch that is off is none.
fn option(setting: &Setting, value: &str) -> Option<String> {
    let long = setting.arg.get_long()?;
    match (setting.kind, setting.arg.get_action().takes_values()) {
        (Kind::Switch, false) => (value == "true").then(|| format!("--{long}")),
        _ => Some(format!("--{long}={value}")),
    }
}
