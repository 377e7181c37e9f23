//! The examples in every command's help and manual page. A test reads each as the program would.

use clap::{Command, builder::StyledStr};

/// What a command's example is given to it by: the words after `holdfast`.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "serve",
        &[
            "holdfast serve",
            "holdfast serve --config /etc/holdfast/holdfast.toml",
            "holdfast serve --database-url-file /run/secrets/database-url --secret-key-file /run/secrets/keys",
        ],
    ),
    (
        "migrate",
        &[
            "holdfast migrate --database-url-file /run/secrets/owner-url",
            "holdfast migrate --print --database-url-file /run/secrets/database-url > missing.sql",
        ],
    ),
    (
        "grants",
        &[
            "holdfast grants --role app",
            "holdfast grants --role app --database-schema holdfast --pooler > grants.sql",
        ],
    ),
    ("keys status", &["holdfast keys status --database-url-file /run/secrets/database-url"]),
    (
        "keys rotate",
        &["holdfast keys rotate --secret-key-file /run/secrets/keys --reason 'yearly change'"],
    ),
    ("demo", &["holdfast demo", "holdfast demo --stay"]),
    (
        "simulate-provider",
        &[
            "holdfast simulate-provider --listen 127.0.0.1:50080 --ledger ledger.jsonl --fault-busy 5",
        ],
    ),
    (
        "pool create",
        &[
            "holdfast pool create shop-eu --currency EUR",
            "holdfast pool create shop-us --currency USD --provider square --amount-mismatch needs-review",
        ],
    ),
    ("pool update", &["holdfast pool update shop-eu --max-lease 5m --hold-throttled 30s"]),
    ("pool list", &["holdfast pool list", "holdfast pool list --columns pool_id,paused,draining"]),
    ("pool pause", &["holdfast pool pause shop-eu"]),
    ("pool drain", &["holdfast pool drain shop-eu --wait"]),
    ("pool resume", &["holdfast pool resume shop-eu"]),
    ("pool delete", &["holdfast pool delete mistyped"]),
    (
        "plan create",
        &[
            "holdfast plan create steady --pool shop-eu --target 50000",
            "holdfast plan create daily --pool shop-eu --target 20000 --day-amounts 5000,5000,10000 --multiples-of 500",
        ],
    ),
    ("plan update", &["holdfast plan update steady --pool shop-eu --target 60000"]),
    ("plan delete", &["holdfast plan delete steady --pool shop-eu"]),
    ("plan show", &["holdfast plan show steady --pool shop-eu --format json"]),
    ("plan list", &["holdfast plan list --pool shop-eu"]),
    (
        "account import",
        &[
            "holdfast account import accounts.csv --pool shop-eu --dry-run",
            "holdfast account import sheet.csv --pool shop-eu --map login=account_id --ignore-columns",
        ],
    ),
    (
        "account correct-balance",
        &[
            "holdfast account correct-balance a-17 --pool shop-eu --balance-minor 4000 --expected-balance-minor 3000 --reason 'a refund by hand' \
             --evidence ticket-4711 --by anna",
        ],
    ),
    (
        "account list",
        &[
            "holdfast account list --pool shop-eu --status processing",
            "holdfast account list --pool shop-eu --columns account_id,balance_minor --format csv",
        ],
    ),
    ("account show", &["holdfast account show a-17 --pool shop-eu"]),
    ("account explain", &["holdfast account explain --pool shop-eu --amount 2500"]),
    ("account pause", &["holdfast account pause a-17 --pool shop-eu"]),
    ("account drain", &["holdfast account drain a-17 --pool shop-eu"]),
    ("account resume", &["holdfast account resume a-17 --pool shop-eu"]),
    ("account lift-hold", &["holdfast account lift-hold a-17 --pool shop-eu"]),
    ("account activate", &["holdfast account activate a-17 --pool shop-eu"]),
    (
        "account update",
        &["holdfast account update a-17 --pool shop-eu --credentials-file a-17.credentials"],
    ),
    ("lease end", &["holdfast lease end a-17 --pool shop-eu"]),
    (
        "redeem-batch",
        &[
            "holdfast redeem-batch cards.csv --pool shop-eu --batch-id 2026-11-30 --dry-run",
            "holdfast redeem-batch cards.csv --pool shop-eu --batch-id 2026-11-30 --output results.csv --wait 5m",
        ],
    ),
    (
        "redemption list",
        &[
            "holdfast redemption list --pool shop-eu --state in-doubt,needs-review",
            "holdfast redemption list --pool shop-eu --batch-id 2026-11-30 --format json",
        ],
    ),
    (
        "redemption watch",
        &[
            "holdfast redemption watch --pool shop-eu",
            "holdfast redemption watch --pool shop-eu --after oldest --format json",
        ],
    ),
    ("redemption show", &["holdfast redemption show 01890a5d-ac96-774b-bcce-b302099a8057"]),
    (
        "redemption resolve",
        &[
            "holdfast redemption resolve 01890a5d-ac96-774b-bcce-b302099a8057 --pool shop-eu --outcome succeeded \
             --amount-minor 2500 --reason 'credited, by the provider' --evidence 'ticket 4711' --by ada",
        ],
    ),
    (
        "redemption reverse",
        &[
            "holdfast redemption reverse 01890a5d-ac96-774b-bcce-b302099a8057 --pool shop-eu --reason 'wrong account' \
             --by ada",
        ],
    ),
    (
        "redemption audit",
        &[
            "holdfast redemption audit --from 2026-11-24 --to 2026-11-25",
            "holdfast redemption audit --from 2026-11-24 --to 2026-11-25 --pool shop-eu --ledger provider.jsonl",
        ],
    ),
    ("provider check", &["holdfast provider check square.toml"]),
    (
        "provider try",
        &[
            "holdfast provider try square.toml --op inquire --code-file code --secrets-dir secrets --print-only",
        ],
    ),
    ("provider apply", &["holdfast provider apply square.toml --dry-run"]),
    ("provider list", &["holdfast provider list"]),
    ("provider show", &["holdfast provider show square --version 2 --file-only"]),
    (
        "subscription create",
        &[
            "holdfast subscription create ledger --pool shop-eu --url https://ledger.example/outcomes --out ledger.secret",
            "holdfast subscription create refunds --pool shop-eu --url https://shop.example/failed --state failed --after oldest",
        ],
    ),
    ("subscription list", &["holdfast subscription list --pool shop-eu"]),
    ("subscription show", &["holdfast subscription show ledger --pool shop-eu"]),
    (
        "subscription update",
        &[
            "holdfast subscription update ledger --pool shop-eu --url https://new.example/outcomes",
            "holdfast subscription update ledger --pool shop-eu --resume",
        ],
    ),
    (
        "subscription rotate-secret",
        &[
            "holdfast subscription rotate-secret ledger --pool shop-eu --overlap 2h --out ledger.new",
        ],
    ),
    ("subscription delete", &["holdfast subscription delete ledger --pool shop-eu"]),
    (
        "subscription deliveries",
        &["holdfast subscription deliveries ledger --pool shop-eu --state dead"],
    ),
    ("subscription retry", &["holdfast subscription retry ledger --pool shop-eu --all-dead"]),
    (
        "token create",
        &[
            "holdfast token create till-7 --role redeemer --pools 'shop-*' --lifetime 90days --out till-7.token",
        ],
    ),
    ("token list", &["holdfast token list"]),
    ("token revoke", &["holdfast token revoke till-7"]),
    (
        "audit-log",
        &["holdfast audit-log --pool shop-eu --since 2026-11-24", "holdfast audit-log --follow"],
    ),
    (
        "doctor",
        &[
            "holdfast doctor",
            "holdfast doctor --server https://holdfast.example:50051 --ca-file ca.pem --token-file doctor.token",
            "holdfast doctor --config /etc/holdfast/holdfast.toml --format json",
        ],
    ),
    (
        "config show",
        &["holdfast config show", "holdfast config show --config holdfast.toml --format json"],
    ),
    ("config check", &["holdfast config check --config holdfast.toml"]),
    (
        "completions",
        &[
            "holdfast completions bash > /etc/bash_completion.d/holdfast",
            "holdfast completions zsh > ~/.zfunc/_holdfast",
            "holdfast completions fish > ~/.config/fish/completions/holdfast.fish",
        ],
    ),
    ("man", &["holdfast man --output /usr/local/share/man/man1"]),
];

/// Puts its examples under the help of each command, after what else is told there.
pub(super) fn with_examples(root: Command) -> Command {
    below(root, "")
}

fn below(command: Command, path: &str) -> Command {
    let command = command.mut_subcommands(|inner| {
        let name = inner.get_name().to_owned();
        below(inner, format!("{path} {name}").trim_start())
    });
    let Some((_, lines)) = EXAMPLES.iter().find(|(of, _)| *of == path) else { return command };
    let title = if lines.len() == 1 { "Example:" } else { "Examples:" };
    let examples = format!("{title}\n  {}", lines.join("\n  "));
    let told = command.get_after_help().map(StyledStr::to_string);
    command.after_help(match told {
        Some(told) => format!("{told}\n\n{examples}"),
        None => examples,
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::Cli;

    /// The full names of the commands that do something.
    fn leaves(command: &Command, path: &str, found: &mut Vec<String>) {
        if !command.has_subcommands() {
            found.push(path.to_owned());
        }
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            leaves(inner, format!("{path} {}", inner.get_name()).trim_start(), found);
        }
    }

    /// The words of a line, as a shell reads them: single quotes alone are used here.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" > ").next().unwrap();
        let parts = line.split('\'').enumerate();
        let parts = parts.flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            _ => vec![part.to_owned()],
        });
        parts.collect()
    }

    #[test]
    fn every_command_has_examples_that_the_program_takes() {
        let mut commands = Vec::new();
        leaves(&Cli::command(), "", &mut commands);
        assert!(commands.len() > 40);
        for command in &commands {
            let found = EXAMPLES.iter().find(|(of, _)| of == command);
            let (_, lines) = found.unwrap_or_else(|| panic!("{command} has no example"));
            for line in *lines {
                let is_its = line.starts_with(&format!("holdfast {command}"));
                assert!(is_its, "{line} is no example of {command}");
                let read = Cli::try_parse_from(words(line));
                assert!(read.is_ok(), "{line}: {}", read.unwrap_err());
            }
        }
        for (of, _) in EXAMPLES {
            assert!(commands.iter().any(|command| command == of), "there is no command {of}");
        }
    }

    #[test]
    fn examples_come_after_what_else_is_told_in_the_help() {
        let mut root = Cli::command();
        let batch = root.find_subcommand_mut("redeem-batch").unwrap();
        let help = batch.render_long_help().to_string();
        let (codes, examples) =
            (help.find("Exit code: 0").unwrap(), help.find("Examples:").unwrap());
        assert!(codes < examples, "{help}");
        let end = root.find_subcommand_mut("lease").unwrap().find_subcommand_mut("end").unwrap();
        assert!(
            end.render_help().to_string().contains("Example:\n  holdfast lease end a-17 --pool")
        );
    }
}
