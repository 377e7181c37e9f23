//! `holdfast completions` and `holdfast man`: what shells and `man` are told of the commands, made from the same
//! definitions as `--help`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{
    Cli,
    shared::output::{Sink, note},
};

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell that the script is for.
    shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// The folder that gets the pages, one for each command: holdfast.1, holdfast-pool.1 and so on. It is created if
    /// missing; pages of the same names are replaced.
    #[arg(long)]
    output: PathBuf,
}

/// Writes a shell's completion script.
pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "holdfast", &mut script);
    let mut out = Sink::stdout();
    out.text(&String::from_utf8(script).context("the script is not UTF-8")?)?;
    out.flush()
}

/// Writes the manual pages of all commands.
pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let ManArgs { output } = args;
    let write = || {
        fs::create_dir_all(output).and_then(|()| clap_mangen::generate_to(Cli::command(), output))
    };
    write().with_context(|| format!("the pages cannot be written to {}", output.display()))?;
    note(format_args!(
        "the pages are in {}: man {}/holdfast.1",
        output.display(),
        output.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of a command and of all below it, as pages have them.
    fn names(command: &clap::Command, before: &str, all: &mut Vec<String>) {
        let name = format!("{before}{}", command.get_name());
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            names(below, &format!("{name}-"), all);
        }
        all.push(name);
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("man/man1");
        man(&ManArgs { output: output.clone() }).unwrap();
        let mut all = Vec::new();
        names(&Cli::command(), "", &mut all);
        assert!(all.contains(&"holdfast-pool-create".to_owned()));
        for name in all {
            let page = fs::read_to_string(output.join(format!("{name}.1")));
            let page = page.unwrap_or_else(|error| panic!("{name}.1: {error}"));
            assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "kept").unwrap();
        let error = man(&ManArgs { output: file.clone() }).unwrap_err();
        assert!(error.to_string().contains(&*file.to_string_lossy()), "{error:#}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }
}
