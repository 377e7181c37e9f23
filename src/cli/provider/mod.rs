//! `holdfast provider`: check, try, apply, list and show the profiles of providers.

mod trial;

use std::{fmt::Display, fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tonic::Code;

use super::shared::{
    client::{PAGE_SIZE, RpcError, Server, ServerArgs, required, unary},
    list::{ListOptions, print_list},
    output::{
        Format, FormatArgs, Sink, after_change, note, printable, printable_lines, record,
        while_read,
    },
    parse, view,
};
use crate::{domain::id::ProviderId, provider::check::check, rpc::pb};

/// What to do about providers.
#[derive(Debug, Subcommand)]
pub(super) enum ProviderCommand {
    /// Read a profile, and run its cases. Needs no server.
    Check(CheckArgs),
    /// Make one call by a profile, and show the request, the answer, and how it is judged. Needs no server
    /// for a file.
    #[command(disable_version_flag = true)]
    Try(Box<trial::TryArgs>),
    /// Apply a profile: redemptions that are begun from now on are begun under it. The same file
    /// again is fine.
    Apply(ApplyArgs),
    /// List the providers, each with its newest version.
    List(ListArgs),
    /// Show a provider's profile, and what it says.
    #[command(disable_version_flag = true)]
    Show(ShowArgs),
}

/// Which file to check.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The profile.
    file: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct ApplyArgs {
    /// The profile.
    file: PathBuf,
    /// Let the server check the profile, its cases and its secrets; apply nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    list: ListOptions,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// The provider.
    #[arg(value_parser = parse::provider)]
    provider: ProviderId,
    /// This version; the newest when not given.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    version: Option<i32>,
    /// Print the file alone, as it was applied.
    #[arg(long, conflicts_with = "format")]
    file_only: bool,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs one of the commands.
pub(super) async fn run(command: ProviderCommand) -> anyhow::Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        ProviderCommand::Check(args) => check_file(&args),
        ProviderCommand::Try(args) => while_read(trial::run(*args)).await,
        ProviderCommand::Apply(args) => apply(args).await.map(done),
        ProviderCommand::List(args) => while_read(list(args)).await.map(done),
        ProviderCommand::Show(args) => while_read(show(args)).await.map(done),
    }
}

/// Reads a file, and says how it is called.
fn read(file: &PathBuf) -> anyhow::Result<(String, String)> {
    let name = printable(&file.display().to_string());
    let bytes = fs::read(file).with_context(|| format!("{name} cannot be read"))?;
    let text = String::from_utf8(bytes).ok().with_context(|| format!("{name} is not UTF-8"))?;
    Ok((name, text))
}

/// A fault as compilers write it.
fn fault_line(file: &str, line: impl Display, message: &str) -> String {
    format!("{file}:{line}: {}", printable(message))
}

fn check_file(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (name, text) = read(&args.file)?;
    let mut out = Sink::stdout();
    match check(&text) {
        Ok(profile) => {
            let cases = profile.case_count();
            out.line(format!(
                "{name}: {} version {} is right, {cases} cases",
                profile.id, profile.version
            ))?;
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => {
            for fault in &faults {
                out.line(fault_line(&name, fault.line, &fault.message))?;
            }
            out.flush()?;
            note(format!("{} faults", faults.len()));
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn apply(args: ApplyArgs) -> anyhow::Result<()> {
    let (name, profile) = read(&args.file)?;
    let server = args.server.connect().await?;
    if args.dry_run {
        let provider = checked(&server, &name, profile).await?;
        return print_facts(args.format, provider);
    }
    let request = unary(pb::ApplyProviderRequest { profile: profile.clone() });
    match server.providers().apply_provider(request).await {
        Ok(reply) => after_change(print_facts(args.format, reply.into_inner().provider)),
        // An error has no room for many faults.
        Err(error) if error.code() == Code::InvalidArgument => {
            checked(&server, &name, profile).await?;
            Err(RpcError(error).into())
        }
        Err(error) => Err(RpcError(error).into()),
    }
}

/// Lets the server check a profile. All that is wrong is printed, and is an error.
async fn checked(
    server: &Server,
    name: &str,
    profile: String,
) -> anyhow::Result<Option<pb::Provider>> {
    let request = unary(pb::CheckProviderRequest { profile });
    let reply = server.providers().check_provider(request).await.map_err(RpcError)?.into_inner();
    for fault in &reply.faults {
        note(fault_line(name, fault.line, &fault.message));
    }
    let faults = reply.fault_count;
    anyhow::ensure!(faults == 0, "the profile has {faults} faults, and was not applied");
    Ok(reply.provider)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let rows = args.list.rows(view::PROVIDER, view::PROVIDER, Sink::stdout())?;
    let mut providers = args.server.connect().await?.providers();
    print_list(
        rows,
        async |page_token| {
            let request = pb::ListProvidersRequest { page_size: PAGE_SIZE, page_token };
            let page = providers.list_providers(unary(request)).await?.into_inner();
            Ok((page.providers, page.next_page_token))
        },
        view::provider,
    )
    .await
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let provider_id = args.provider.to_string();
    let version = args.version.unwrap_or(0);
    let request = unary(pb::GetProviderRequest { provider_id, version });
    let reply = args.server.connect().await?.providers().get_provider(request).await;
    let provider = required(reply.map_err(RpcError)?.into_inner().provider, "provider")?;
    if args.file_only {
        let mut out = Sink::stdout();
        out.text(&provider.profile)?;
        return out.flush();
    }
    let format = args.format.for_stdout();
    let mut row = view::provider(&provider);
    if format == Format::Table {
        let mut out = record(format, view::PROVIDER, &row, Sink::stdout())?;
        out.text(&printable_lines(&provider.profile))?;
        return out.flush();
    }
    row.push(provider.profile.into());
    record(format, view::PROVIDER_WITH_FILE, &row, Sink::stdout())?;
    Ok(())
}

fn print_facts(format: FormatArgs, provider: Option<pb::Provider>) -> anyhow::Result<()> {
    let row = view::provider(&required(provider, "provider")?);
    record(format.for_stdout(), view::PROVIDER, &row, Sink::stdout())?;
    Ok(())
}
