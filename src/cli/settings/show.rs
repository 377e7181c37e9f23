//! `holdfast config`: which settings there are, what each is, and where that comes from.

use std::env;

use clap::{Args, Command, Parser as _, Subcommand};
use serde_json::Value;
use url::Url;

use super::{CONFIG_VARIABLE, File, Setting, all, shown};
use crate::cli::{
    Cli, definition,
    shared::{
        list::ListOptions,
        output::{Sink, note},
    },
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// Show every setting: what it is, and whether that comes from its variable, from the file or from the program.
    /// Secrets are not shown.
    Show(ShowArgs),
    /// Read the file, and see whether its settings and those of the environment fit together.
    Check(CheckArgs),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ShowArgs {
    #[command(flatten)]
    list: ListOptions,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct CheckArgs {
    /// The file; the one that HOLDFAST_CONFIG names, when not given.
    #[arg(long, env = CONFIG_VARIABLE, value_name = "FILE")]
    config: std::path::PathBuf,
}

/// The columns of a setting.
const COLUMNS: &[&str] = &["setting", "value", "source"];

/// Runs one of the commands, with the file that the line or the environment names.
pub(in crate::cli) fn run(
    command: ConfigCommand,
    file: Option<std::path::PathBuf>,
) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Show(args) => show(&args, file),
        ConfigCommand::Check(args) => check(&args),
    }
}

fn show(args: &ShowArgs, file: Option<std::path::PathBuf>) -> anyhow::Result<()> {
    let settings = settings();
    let file = file.map(|path| File::read(&path, &settings)).transpose()?.unwrap_or_default();
    let mut rows = args.list.rows(COLUMNS, COLUMNS, Sink::stdout())?;
    for setting in &settings {
        let (value, source) = effective(setting, &file);
        rows.push(&[setting.name.as_str().into(), value, source])?;
    }
    rows.finish()?;
    Ok(())
}

fn settings() -> Vec<Setting> {
    let mut root: Command = definition();
    root.build();
    all(&root)
}

/// What a setting is, and where that comes from.
fn effective(setting: &Setting, file: &File) -> (Value, Value) {
    let variable = setting.variable.as_deref();
    let told = variable.and_then(env::var_os).map(|it| it.to_string_lossy().into_owned());
    if let Some(value) = told {
        let value = if setting.is_secret { "(hidden)".to_owned() } else { without_password(value) };
        return (value.into(), variable.into());
    }
    // Where the environment has the secret itself, nobody reads the file of it.
    if setting.is_in_environment() {
        let secret = variable.and_then(|variable| variable.strip_suffix("_FILE"));
        return (Value::Null, secret.map(|secret| format!("not used: {secret} is set")).into());
    }
    if let Some(given) = file.get(&setting.name) {
        let source = format!("{}:{}", shown(&file.path), given.line);
        return (without_password(given.value.clone()).into(), source.into());
    }
    let default = setting.arg.get_default_values().first();
    match default.map(|value| value.to_string_lossy().into_owned()) {
        Some(value) => (value.into(), "default".into()),
        None => (Value::Null, Value::Null),
    }
}

/// A URL without the name and the password that it may hold.
fn without_password(value: String) -> String {
    let Ok(mut url) = Url::parse(&value) else { return value };
    if url.password().is_none() && url.username().is_empty() {
        return value;
    }
    let hidden = url.set_username("hidden").and_then(|()| url.set_password(None));
    if hidden.is_ok() { url.into() } else { "(hidden)".to_owned() }
}

/// The file was read when this runs: what is left is whether a server would take it all together.
fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let file = File::read(&args.config, &settings())?;
    let words = ["holdfast".into(), "serve".into(), "--config".into(), args.config.clone().into()];
    let line = super::with_file(&definition(), words.into())?;
    let serve = Cli::try_parse_from(line.words).map_err(|error| {
        anyhow::anyhow!("`holdfast serve` would not take it: {}", first_lines(&error.to_string()))
    })?;
    serve.serve_args().map_or(Ok(()), crate::config::ServeArgs::check)?;
    let (name, count) = (shown(&args.config), file.given.len());
    note(format_args!("{name}: {count} settings, and `holdfast serve` takes them"));
    Ok(())
}

/// An error of the command line, without the hint at its help.
fn first_lines(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    text.split("\n\nUsage").next().unwrap_or(text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_name_and_password() {
        let shown = |text: &str| without_password(text.to_owned());
        assert_eq!(shown("https://u:p@example.com/x"), "https://hidden@example.com/x");
        assert_eq!(shown("https://u@example.com/"), "https://hidden@example.com/");
        for same in ["http://127.0.0.1:50051", "127.0.0.1:50051", "16", "x:y@z"] {
            assert_eq!(shown(same), same);
        }
    }
}
