//! The file of settings: read whole, with every fault and its line.

use std::{
    any::TypeId,
    fs::File as Opened,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Arg, Command, error::ContextKind};
use toml::de::{DeTable, DeValue};

use super::{Kind, Setting, shown};

/// No file is longer.
const MAX_BYTES: u64 = 1024 * 1024;
/// The faults that one error names.
const MAX_FAULTS: usize = 50;
const OTHERS_CAN_WRITE: u32 = 0o002;
/// How alike a name must be to be meant, from 0 to 1.
const ALIKE: f64 = 0.8;

/// A setting as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Given {
    /// Its name.
    pub(in crate::cli) name: String,
    /// Its value, as an option would have it.
    pub(in crate::cli) value: String,
    /// Its line in the file, from 1.
    pub(in crate::cli) line: usize,
}

/// A file that was read, without faults.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct File {
    /// Where it is.
    pub(in crate::cli) path: PathBuf,
    /// What it sets, in its order.
    pub(in crate::cli) given: Vec<Given>,
}

impl File {
    /// Reads a file of these settings.
    ///
    /// # Errors
    /// When it cannot be read, every user of the machine can write it, or anything in it is wrong: all faults are named.
    pub(in crate::cli) fn read(path: &Path, settings: &[Setting]) -> anyhow::Result<Self> {
        let text = text(path)?;
        match parse(&text, settings) {
            Ok(given) => Ok(Self { path: path.to_owned(), given }),
            Err(faults) => {
                let name = shown(path);
                let lines = faults.iter().take(MAX_FAULTS).map(|fault| {
                    format!(
                        "\n  {name}:{}: {}",
                        fault.line,
                        crate::cli::shared::output::printable(&fault.message)
                    )
                });
                let lines: String = lines.collect();
                let count = match faults.len() {
                    1 => "a fault".to_owned(),
                    many => format!("{many} faults"),
                };
                anyhow::bail!("the config file {name} has {count}:{lines}")
            }
        }
    }

    /// What it says of a setting.
    pub(in crate::cli) fn get(&self, name: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.name == name)
    }
}

/// Who can write the file decides where tokens are sent: not every user of the machine may.
fn text(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read the config file {}", shown(path));
    let file = Opened::open(path).with_context(cannot)?;
    let mode = file.metadata().with_context(cannot)?.permissions().mode();
    anyhow::ensure!(
        mode & OTHERS_CAN_WRITE == 0,
        "the config file {} is refused: every user of this machine can write it. `chmod o-w` it, and see what it sets",
        shown(path)
    );
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).with_context(cannot)?;
    anyhow::ensure!(
        text.len() as u64 <= MAX_BYTES,
        "the config file {} is longer than {MAX_BYTES} bytes",
        shown(path)
    );
    Ok(text)
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) message: String,
}

pub(super) fn parse(text: &str, settings: &[Setting]) -> Result<Vec<Given>, Vec<Fault>> {
    let line_of = |at: usize| {
        1 + text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
    };
    let (mut given, mut faults) = (Vec::<Given>::new(), Vec::new());
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = line_of(error.span().map_or(0, |span| span.start));
        faults.push(Fault { line, message: format!("not TOML: {}", error.message()) });
    }
    if !errors.is_empty() {
        // What is read of such a file may be half of what stands there.
        return Err(faults);
    }
    for (key, value) in root.get_ref() {
        let (name, line) = (key.get_ref().as_ref(), line_of(key.span().start));
        match read(name, value.get_ref(), settings) {
            Ok(value) => given.push(Given { name: name.to_owned(), value, line }),
            Err(message) => faults.push(Fault { line, message }),
        }
    }
    given.sort_by_key(|given| given.line);
    faults.extend(contradictions(&given, settings));
    faults.sort();
    if faults.is_empty() { Ok(given) } else { Err(faults) }
}

/// A setting's value, as its option would have it.
fn read(name: &str, value: &DeValue<'_>, settings: &[Setting]) -> Result<String, String> {
    let Some(setting) = settings.iter().find(|setting| setting.name == name) else {
        return Err(unknown(name, value, settings));
    };
    if setting.is_secret {
        let file = format!("{name}-file");
        return Err(match settings.iter().any(|setting| setting.name == file) {
            true => format!(
                "{name} is a secret: write it to a file that only its owner can read, and name that with {file}"
            ),
            false => format!("{name} is a secret: set its variable instead"),
        });
    }
    let text = match (setting.kind, value) {
        (Kind::Text, DeValue::String(text)) => text.to_string(),
        (Kind::Number, DeValue::Integer(number)) => {
            let number = i128::from_str_radix(number.as_str(), number.radix());
            number.map_err(|_| format!("{name} must be a number such as 16"))?.to_string()
        }
        (Kind::Number, DeValue::Float(number)) if setting.takes_fractions() => {
            number.as_str().to_owned()
        }
        (Kind::Switch, DeValue::Boolean(on)) => on.to_string(),
        (Kind::Text, _) => return Err(format!("{name} must be text, in quotes: {name} = \"…\"")),
        (Kind::Number, _) => {
            return Err(format!("{name} must be a number, without quotes: {name} = 16"));
        }
        (Kind::Switch, _) => {
            return Err(format!("{name} must be true or false, without quotes"));
        }
    };
    check(setting, &text).map(|()| text)
}

fn unknown(name: &str, value: &DeValue<'_>, settings: &[Setting]) -> String {
    if let DeValue::Table(_) | DeValue::Array(_) = value {
        return format!(
            "there is no setting {name:?}: all are NAME = VALUE, without tables and lists"
        );
    }
    // What people write who have the variable or the option in mind.
    let plain = name.trim_start_matches('-').to_lowercase().replace('_', "-");
    let plain = plain.strip_prefix("holdfast-").unwrap_or(&plain);
    let likeness = |setting: &&Setting| strsim::jaro_winkler(&setting.name, plain);
    let nearest = settings
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|it| likeness(it) >= ALIKE);
    match nearest {
        Some(nearest) => format!("there is no setting {name:?}: do you mean {}?", nearest.name),
        None => format!("there is no setting {name:?}: `holdfast config show` names them all"),
    }
}

/// Reads a value as the option does.
fn check(setting: &Setting, text: &str) -> Result<(), String> {
    if setting.kind == Kind::Switch {
        return Ok(());
    }
    let arg = Arg::new("value")
        .long("value")
        .action(setting.arg.get_action().clone())
        .value_parser(setting.arg.get_value_parser().clone());
    let command = Command::new("setting").no_binary_name(true).disable_help_flag(true).arg(arg);
    let Err(error) = command.try_get_matches_from([format!("--value={text}")]) else {
        return Ok(());
    };
    let name = &setting.name;
    if let Some(valid) = error.get(ContextKind::ValidValue).map(ToString::to_string)
        && !valid.is_empty()
    {
        return Err(format!("{name} cannot be {text:?}: it is one of {valid}"));
    }
    match std::error::Error::source(&error) {
        Some(why) => Err(format!("{name} cannot be {text:?}: {why}")),
        None => Err(format!("{name} cannot be {text:?}")),
    }
}

/// Pairs of settings of which a command takes only one. Each is told at the later one.
fn contradictions(given: &[Given], settings: &[Setting]) -> Vec<Fault> {
    let of = |given: &Given| settings.iter().find(|setting| setting.name == given.name);
    let mut faults = Vec::new();
    for (index, later) in given.iter().enumerate() {
        for earlier in &given[..index] {
            let pair = of(earlier).zip(of(later));
            if pair.is_some_and(|(a, b)| a.excludes(b) || b.excludes(a)) {
                faults.push(Fault {
                    line: later.line,
                    message: format!(
                        "{} cannot be set together with {}, on line {}",
                        later.name, earlier.name, earlier.line
                    ),
                });
            }
        }
    }
    faults
}

impl Setting {
    fn takes_fractions(&self) -> bool {
        self.arg.get_value_parser().type_id() == TypeId::of::<f64>()
    }

    fn excludes(&self, other: &Self) -> bool {
        self.excluded.contains(other.arg.get_id())
    }
}
