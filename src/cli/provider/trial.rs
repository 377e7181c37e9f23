//! `holdfast provider try`: one call by a profile, shown with what came back and how that was judged.

use std::{fs::File, io::Read as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{fault_line, read};
use crate::{
    cli::{
        account,
        shared::{
            client::{RpcError, ServerArgs, required, unary},
            output::{Sink, note, printable},
            parse,
        },
    },
    config::ProviderArgs,
    domain::{
        id::{ProviderId, RedemptionId},
        money::{Currency, Money},
    },
    provider::{
        Provider, SecretValues,
        check::check,
        client::{Exchange, Heard, Judged, Trial, Tried},
        profile::{OpKind, Profile, Shown, Values},
        secrets::Secrets,
    },
    rpc::pb,
};

/// The exit code when the answer leaves it open what happened.
const IN_DOUBT: u8 = 3;
/// What fetches a token alone.
const TOKEN: &str = "token";
/// The longest file of a code that is read.
const MAX_CODE_FILE_BYTES: u64 = 4096;
/// How long after now a send may still be begun.
const NOT_AFTER: time::Duration = time::Duration::minutes(15);

#[derive(Args, Debug)]
#[command(after_help = "Exit code: 0 when the answer was understood, 3 when the verdict is in \
    doubt, 1 when there was no answer, or something is wrong. A code on a command line stays in the \
    shell's history and is seen by other users of the machine: rather use --code-file.")]
pub(in crate::cli) struct TryArgs {
    /// The profile: a file, or the id of a provider that the server has. What has neither '.' nor '/'
    /// in it is an id.
    provider: String,
    /// This version of the server's; the newest when not given.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    version: Option<i32>,
    /// What to ask for: inquire, look_up, find or list, which change nothing by themselves; token, which
    /// fetches a token; or send, cancel or reverse, with --spends-the-card.
    #[arg(long)]
    op: String,
    /// Show the request, and do not send it.
    #[arg(long)]
    print_only: bool,
    /// For send, cancel and reverse: really do it. No server records it, and no account's balance
    /// changes: what it does is outside of Holdfast's books.
    #[arg(long)]
    spends_the_card: bool,
    #[command(flatten)]
    values: ValueArgs,
    /// The folder of providers' secrets: `secret.NAME` is the file ID/NAME in it.
    #[arg(long, env = "HOLDFAST_SECRETS_DIR")]
    secrets_dir: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten, next_help_heading = "The built-in provider, as in `holdfast serve`")]
    built_in: ProviderArgs,
}

/// The values of a request.
#[derive(Args, Debug)]
#[command(next_help_heading = "Values")]
struct ValueArgs {
    /// The card's code.
    #[arg(long, conflicts_with = "code_file")]
    code: Option<String>,
    /// A file that holds the card's code, in one line; - is standard input.
    #[arg(long)]
    code_file: Option<PathBuf>,
    /// The key: a redemption's id, which is written as the profile writes keys, or a key as it is. For
    /// send and inquire a new one when not given.
    #[arg(long)]
    key: Option<String>,
    /// The account's id.
    #[arg(long)]
    account: Option<String>,
    /// The account's country.
    #[arg(long, value_parser = parse::country)]
    country: Option<String>,
    /// A label of the account, key=value; give it more than once for several.
    #[arg(long, value_parser = parse::label)]
    label: Vec<(String, String)>,
    /// A file with the account's credentials, a line NAME=VALUE for each.
    #[arg(long)]
    credentials_file: Option<PathBuf>,
    /// The provider's id of its work.
    #[arg(long)]
    task: Option<String>,
    /// The provider's name for what it did.
    #[arg(long = "ref")]
    reference: Option<String>,
    /// The expected amount, or what reverse is to take back, in minor units.
    #[arg(long, value_parser = parse::amount)]
    amount: Option<i64>,
    /// What amounts are in where the answer does not tell. The profile's first when not given.
    #[arg(long, value_parser = parse::currency)]
    currency: Option<Currency>,
    /// For list: from this time, RFC 3339, or a date.
    #[arg(long, value_parser = parse::time)]
    from: Option<OffsetDateTime>,
    /// For list: before this time.
    #[arg(long, value_parser = parse::time)]
    to: Option<OffsetDateTime>,
    /// For list: this page, as the one before told it.
    #[arg(long)]
    page: Option<String>,
}

/// Tries it.
pub(super) async fn run(args: TryArgs) -> anyhow::Result<ExitCode> {
    let mut out = Sink::stdout();
    let Some((name, provider)) = provider(&args, &mut out).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let profile = provider.profile();
    let (kind, mut problems) = asked_for(&args, profile);
    let values = match args.values.read(profile, kind.flatten()) {
        Ok(values) => values,
        Err(error) => {
            problems.push(format!("{error:#}"));
            Values::at(OffsetDateTime::now_utc())
        }
    };
    let Some(kind) = kind else { return Ok(refused(&problems)) };
    let trial = Trial { kind, values, currency: args.values.currency(profile) };
    problems.extend(provider.lacks(&trial).iter().map(|name| lacking(name)));
    if !problems.is_empty() {
        return Ok(refused(&problems));
    }
    let op = kind.map_or(TOKEN, OpKind::name);
    out.line(format!("{} version {}, {op}", profile.id, profile.version))?;
    if args.print_only {
        for (what, request) in provider.would_send(&trial)? {
            out.line(format!("\n--- the request for {what}, which is not sent"))?;
            print_request(&request, &mut out)?;
        }
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let tried = provider.try_out(&trial).await;
    print(&name, &tried, &mut out)?;
    out.flush()?;
    Ok(code(&tried, kind))
}

/// Says all that is wrong.
fn refused(problems: &[String]) -> ExitCode {
    for problem in problems {
        note(format!("error: {}", printable(problem)));
    }
    ExitCode::FAILURE
}

fn code(tried: &Tried, kind: Option<OpKind>) -> ExitCode {
    let answered = tried.exchanges.iter().all(|it| it.answer.is_ok());
    let is_done = match kind {
        None => tried.notes.iter().any(|it| it.starts_with("a token was given")),
        Some(OpKind::List) => !tried.judged.is_empty() || answered,
        Some(_) => !tried.judged.is_empty(),
    };
    if !answered || !is_done {
        return ExitCode::FAILURE;
    }
    let in_doubt = tried.judged.iter().any(|it| it.verdict == "in_doubt");
    if in_doubt { ExitCode::from(IN_DOUBT) } else { ExitCode::SUCCESS }
}

/// The provider, and what its profile is called. `None`: the file has faults, which were printed.
async fn provider(args: &TryArgs, out: &mut Sink) -> anyhow::Result<Option<(String, Provider)>> {
    let id = ProviderId::parse(&args.provider).ok();
    if let Some(id) = id.as_ref().filter(|id| id.as_str() == Profile::built_in().id.as_str()) {
        return Ok(Some((id.to_string(), Provider::built_in(&args.built_in)?)));
    }
    let (name, text) = match &id {
        Some(id) => (id.to_string(), applied(args, id).await?),
        None if args.version.is_some() => {
            anyhow::bail!("--version is for a provider of the server's, not for a file")
        }
        None => read(&PathBuf::from(&args.provider))?,
    };
    let profile = match check(&text) {
        Ok(profile) => profile,
        Err(faults) => {
            for fault in &faults {
                out.line(fault_line(&name, fault.line, &fault.message))?;
            }
            out.flush()?;
            note(format!("{} faults", faults.len()));
            return Ok(None);
        }
    };
    let secrets = Secrets::new(args.secrets_dir.clone(), &profile.id);
    Ok(Some((name, Provider::new(profile, SecretValues::Files(secrets), None)?)))
}

/// The file of a provider as the server has it.
async fn applied(args: &TryArgs, id: &ProviderId) -> anyhow::Result<String> {
    let request =
        pb::GetProviderRequest { provider_id: id.to_string(), version: args.version.unwrap_or(0) };
    let server = args.server.connect().await?;
    let reply = server.providers().get_provider(unary(request)).await.map_err(RpcError)?;
    Ok(required(reply.into_inner().provider, "provider")?.profile)
}

/// The op, `Some(None)` for a token; and what is wrong with it.
fn asked_for(args: &TryArgs, profile: &Profile) -> (Option<Option<OpKind>>, Vec<String>) {
    let name = args.op.replace('-', "_");
    let mut has: Vec<&str> = profile.operations();
    if profile.fetches_token() {
        has.push(TOKEN);
    }
    let kind = if name == TOKEN {
        profile.fetches_token().then_some(None)
    } else {
        profile.op_named(&name).map(Some)
    };
    let Some(kind) = kind else {
        let why = format!("{} has no op {}: it has {}", profile.id, args.op, has.join(", "));
        return (None, vec![why]);
    };
    let changes = matches!(kind, Some(OpKind::Send | OpKind::Cancel | OpKind::Reverse));
    let mut problems = Vec::new();
    if changes && !args.spends_the_card && !args.print_only {
        problems.push(format!(
            "{name} changes something at the provider, outside of Holdfast's books: give \
             --spends-the-card if that is meant, or --print-only to see the request alone"
        ));
    }
    (Some(kind), problems)
}

impl ValueArgs {
    fn currency(&self, profile: &Profile) -> Currency {
        let given = self.currency.or(profile.currencies.first().copied());
        given.unwrap_or(Currency::NONE)
    }

    fn read(&self, profile: &Profile, kind: Option<OpKind>) -> anyhow::Result<Values> {
        let mut values = Values::at(OffsetDateTime::now_utc());
        let key = profile.identity.key;
        values.key = match &self.key {
            Some(text) => Some(match RedemptionId::parse(text) {
                Ok(id) => key.of(id),
                Err(_) => text.clone(),
            }),
            None if matches!(kind, Some(OpKind::Send | OpKind::Inquire)) => {
                Some(key.of(RedemptionId::new()))
            }
            None => None,
        };
        values.code = self.code()?;
        values.account.id.clone_from(&self.account);
        values.account.country.clone_from(&self.country);
        values.account.labels = self.label.iter().cloned().collect();
        if let Some(file) = &self.credentials_file {
            let credentials = account::credentials_of(file)?;
            let pairs = credentials.expose();
            values.account.secrets =
                pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        }
        values.task.clone_from(&self.task);
        values.reference.clone_from(&self.reference);
        let currency = self.currency(profile);
        let amount = self.amount.map(|amount_minor| Money { amount_minor, currency });
        (values.expected, values.amount) = (amount, amount);
        values.not_after = Some((values.now + NOT_AFTER).format(&Rfc3339)?);
        values.from = self.from.map(|time| time.format(&Rfc3339)).transpose()?;
        values.to = self.to.map(|time| time.format(&Rfc3339)).transpose()?;
        values.page.clone_from(&self.page);
        Ok(values)
    }

    fn code(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.code_file else { return Ok(self.code.clone()) };
        let mut text = String::new();
        let read = if file.as_os_str() == "-" {
            std::io::stdin().take(MAX_CODE_FILE_BYTES).read_to_string(&mut text)
        } else {
            let file = File::open(file);
            file.and_then(|file| file.take(MAX_CODE_FILE_BYTES).read_to_string(&mut text))
        };
        read.with_context(|| format!("the code cannot be read from {}", file.display()))?;
        let code = text.trim();
        anyhow::ensure!(!code.is_empty(), "the code's file is empty");
        anyhow::ensure!(code.lines().count() == 1, "the code's file has more than one line");
        Ok(Some(code.to_owned()))
    }
}

/// What is missing, and how to give it.
fn lacking(name: &str) -> String {
    let label = name.strip_prefix("account.labels.");
    let flag = match name {
        "code" => "--code-file, or --code",
        "key" => "--key",
        "account.id" => "--account",
        "account.country" => "--country",
        "task" => "--task",
        "ref" => "--ref",
        "from" => "--from",
        "to" => "--to",
        "page" => "--page",
        _ if name.starts_with("expected.") || name.starts_with("amount.") => {
            "--amount, and --currency"
        }
        _ if name.starts_with("account.secret.") => "--credentials-file",
        _ if label.is_some() => {
            return format!("{name} has no value: give --label {}=…", label.unwrap_or_default());
        }
        _ => return name.to_owned(),
    };
    format!("{name} has no value: give {flag}")
}

fn print(name: &str, tried: &Tried, out: &mut Sink) -> anyhow::Result<()> {
    for exchange in &tried.exchanges {
        let Exchange { what, request, answer } = exchange;
        out.line(format!("\n--- the request for {what}"))?;
        print_request(request, out)?;
        match answer {
            Ok(heard) => print_answer(heard, out)?,
            Err(why) => out.line(format!("\n--- no answer: {}", printable(why)))?,
        }
    }
    if !tried.judged.is_empty() || !tried.notes.is_empty() {
        out.line("\n--- how it is judged")?;
    }
    for text in &tried.notes {
        out.line(printable(text))?;
    }
    for judged in &tried.judged {
        print_judged(name, judged, out)?;
    }
    Ok(())
}

fn print_request(request: &Shown, out: &mut Sink) -> anyhow::Result<()> {
    out.line(printable(&format!("{} {}", request.method, request.url)))?;
    for (name, value) in &request.headers {
        out.line(printable(&format!("{name}: {value}")))?;
    }
    if let Some(body) = &request.body {
        out.line(format!("\n{}", printable(body)))?;
    }
    Ok(())
}

fn print_answer(heard: &Heard, out: &mut Sink) -> anyhow::Result<()> {
    out.line(format!("\n--- the answer\n{} {}", heard.version, heard.status))?;
    for (name, value) in &heard.headers {
        out.line(printable(&format!("{name}: {value}")))?;
    }
    if heard.body_bytes > 0 {
        out.line(format!("\n{}", printable(&heard.body)))?;
    }
    out.line(format!("({} bytes)", heard.body_bytes))
}

fn print_judged(name: &str, judged: &Judged, out: &mut Sink) -> anyhow::Result<()> {
    match judged.rule {
        Some(line) => out.line(format!("rule: {name}:{line}"))?,
        None => out.line("rule: none matched, which is in doubt")?,
    }
    if let Some(found) = judged.found {
        out.line(format!("items: {found}"))?;
    }
    for (what, text) in &judged.taken {
        out.line(printable(&format!("take.{what}: {text}")))?;
    }
    out.line(printable(&format!("verdict: {}: {}", judged.verdict, judged.details)))
}
