use std::{ffi::OsString, fs};

use clap::{CommandFactory as _, Parser as _};

use super::*;
use crate::cli::{Cli, definition};

fn settings() -> Vec<Setting> {
    let mut root = definition();
    root.build();
    all(&root)
}

fn faults(text: &str) -> Vec<String> {
    let faults = file::parse(text, &settings()).unwrap_err();
    faults.iter().map(|fault| format!("{}: {}", fault.line, fault.message)).collect()
}

/// A value that a setting takes, as the file has it.
fn sample(setting: &Setting) -> String {
    let possible = setting.arg.get_possible_values();
    let default =
        setting.arg.get_default_values().first().map(|it| it.to_string_lossy().into_owned());
    match (setting.kind, possible.first(), default) {
        (Kind::Switch, ..) => "true".to_owned(),
        (Kind::Number, _, default) => default.unwrap_or_else(|| "64".to_owned()),
        (Kind::Text, Some(value), _) => format!("{:?}", value.get_name()),
        (Kind::Text, None, Some(default)) => format!("{default:?}"),
        (Kind::Text, None, None) => {
            let name = &setting.name;
            let value = match name.as_str() {
                _ if name.ends_with("-url") => "https://example.com/keys",
                _ if name.ends_with("listen") => "127.0.0.1:50055",
                _ if ["timeout", "window", "after", "horizon", "time"]
                    .iter()
                    .any(|end| name.ends_with(end)) =>
                {
                    "7s"
                }
                _ => "text",
            };
            format!("{value:?}")
        }
    }
}

#[test]
fn every_setting_can_be_set_in_the_file_but_for_secrets() {
    let settings = settings();
    assert!(settings.len() > 80, "{}", settings.len());
    let mut secrets = Vec::new();
    for setting in &settings {
        let text = format!("{} = {}", setting.name, sample(setting));
        match file::parse(&text, &settings) {
            Ok(given) => assert_eq!(given[0].name, setting.name),
            Err(faults) if setting.is_secret => {
                assert!(faults[0].message.contains("is a secret"), "{faults:?}");
                secrets.push(setting.name.clone());
            }
            Err(faults) => panic!("{text}: {faults:?}"),
        }
    }
    assert_eq!(
        secrets,
        [
            "database-url",
            "migration-database-url",
            "simulator-api-key",
            "simulator-api-secret",
            "simulator-webhook-secret"
        ]
    );
}

#[test]
fn every_option_with_a_variable_of_ours_is_a_setting_by_the_name_of_the_variable() {
    fn each(command: &clap::Command, check: &mut impl FnMut(&Arg)) {
        command.get_arguments().for_each(&mut *check);
        command.get_subcommands().for_each(|inner| each(inner, check));
    }
    let settings = settings();
    let mut seen = 0;
    each(&Cli::command(), &mut |arg| {
        let Some(variable) = arg.get_env().and_then(|name| name.to_str()) else { return };
        let Some(rest) = variable.strip_prefix("HOLDFAST_").filter(|rest| *rest != "CONFIG") else {
            return;
        };
        let name = rest.to_lowercase().replace('_', "-");
        assert!(settings.iter().any(|setting| setting.name == name), "{variable}");
        // Those of the simulator have its name before them.
        let long = arg.get_long().unwrap();
        assert!(name == long || name == format!("simulator-{long}"), "{variable}: --{long}");
        seen += 1;
    });
    assert!(seen > 100, "{seen}");
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_line_and_the_nearest_name() {
    let told = faults(
        "listen = 5\nlisten-adress = \"x\"\n# a comment\ndatabase-connections = \"16\"\nHOLDFAST_SERVER = \"x\"\n\
         drain-delay = \"soon\"\nauth = \"maybe\"\ninsecure-listen = \"yes\"\ndatabase-url = \"postgres://hush\"\n\
         max-connections = 1\nfruit = \"x\"\n[serve]\nlisten = \"x\"\n",
    );
    let wanted = [
        "1: listen must be text, in quotes",
        "2: there is no setting \"listen-adress\": do you mean listen",
        "4: database-connections must be a number, without quotes",
        "5: there is no setting \"HOLDFAST_SERVER\": do you mean server?",
        "6: drain-delay cannot be \"soon\"",
        "7: auth cannot be \"maybe\": it is one of on, off",
        "8: insecure-listen must be true or false",
        "9: database-url is a secret",
        "10: max-connections cannot be \"1\"",
        "11: there is no setting \"fruit\": `holdfast config show` names them all",
        "12: there is no setting \"serve\": all are NAME = VALUE",
    ];
    assert_eq!(told.len(), wanted.len(), "{told:#?}");
    for (told, wanted) in told.iter().zip(wanted) {
        assert!(told.starts_with(wanted), "{told}");
        assert!(!told.contains("hush"), "{told}");
    }
    let told = faults("listen = \"127.0.0.1:1\n");
    assert!(told[0].starts_with("1: not TOML"), "{told:?}");
    let told = faults("jwt-jwks-file = \"a\"\njwt-jwks-url = \"https://example.com/\"\n");
    assert_eq!(told, ["2: jwt-jwks-url cannot be set together with jwt-jwks-file, on line 1"]);
}

fn completed(file: &str, line: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("holdfast.toml");
    fs::write(&path, file).unwrap();
    let words = ["holdfast"]
        .into_iter()
        .chain(line.split(' '))
        .map(|word| OsString::from(word.replace("FILE", path.to_str().unwrap())));
    let done = with_file(&definition(), words.collect()).unwrap();
    assert!(Cli::try_parse_from(&done.words).is_ok(), "{:?}", done.words);
    done.added
}

#[test]
fn the_file_may_be_named_before_the_command_between_its_words_and_after_it() {
    let file = "listen = \"127.0.0.1:1\"\nserver = \"http://127.0.0.1:2\"\n";
    let server = ["--server=http://127.0.0.1:2"];
    for line in [
        "--config FILE pool list",
        "--config=FILE pool list",
        "pool --config FILE list",
        "pool list --config FILE",
        "--while-stdin-is-open --config FILE pool list",
    ] {
        assert_eq!(completed(file, line), server, "{line}");
    }
    // A value of the command's own is none of these words.
    assert_eq!(completed(file, "pool --config FILE pause pool"), server);
    let words = |line: &str| -> Vec<OsString> { line.split(' ').map(OsString::from).collect() };
    for bad in ["holdfast --config", "holdfast --config none.toml completions bash"] {
        let line = with_file(&definition(), words(bad)).unwrap();
        assert!(Cli::try_parse_from(&line.words).is_err(), "{bad}");
    }
    for bad in ["holdfast --config none.toml", "holdfast --config none.toml pool list"] {
        assert!(with_file(&definition(), words(bad)).is_err(), "{bad}");
    }
}

#[test]
fn the_version_is_an_option_of_the_program_alone() {
    fn each(command: &clap::Command) {
        for inner in command.get_subcommands() {
            let versions = inner.get_arguments().filter(|arg| {
                arg.get_long() == Some("version") && !arg.get_action().takes_values()
            });
            assert_eq!(versions.count(), 0, "{}", inner.get_name());
            each(inner);
        }
    }
    let mut root = definition();
    root.build();
    each(&root);
    let asked = Cli::try_parse_from(["holdfast", "--version"]).unwrap_err();
    assert_eq!(asked.kind(), clap::error::ErrorKind::DisplayVersion);
    for line in ["serve --version", "pool list --version"] {
        let words = ["holdfast"].into_iter().chain(line.split(' '));
        let error = Cli::try_parse_from(words).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::UnknownArgument, "{line}");
    }
}

#[test]
fn the_file_fills_what_the_line_leaves_open_and_nothing_else() {
    let file = "listen = \"127.0.0.1:1\"\nserver = \"http://127.0.0.1:2\"\nformat = \"json\"\n\
                simulator-listen = \"127.0.0.1:3\"\ninsecure-listen = true\nprovider-cancels = false\n";
    assert_eq!(
        completed(file, "serve --config FILE"),
        ["--listen=127.0.0.1:1", "--insecure-listen", "--provider-cancels=false"]
    );
    assert_eq!(
        completed(file, "serve --listen 127.0.0.1:9 --config=FILE --provider-cancels true"),
        ["--insecure-listen"]
    );
    assert_eq!(
        completed(file, "pool list --config FILE"),
        ["--format=json", "--server=http://127.0.0.1:2"]
    );
    assert_eq!(
        completed(file, "simulate-provider --ledger l --config FILE"),
        ["--listen=127.0.0.1:3"]
    );
    // What is before the options stays there, and what comes after `--` does.
    let line =
        "redeem-batch --config FILE --pool p --batch-id b --server http://127.0.0.1:4 -- -f.csv";
    assert_eq!(completed(file, line), ["--format=json"]);
    assert_eq!(completed(file, "completions bash"), [""; 0]);
}

#[test]
fn an_option_puts_out_of_use_what_the_file_says_and_cannot_be_together_with_it() {
    let file = "jwt-issuer = \"i\"\njwt-audience = \"a\"\njwt-jwks-file = \"keys\"\n";
    let line = "serve --config FILE --jwt-jwks-url https://example.com/keys";
    assert_eq!(completed(file, line), ["--jwt-issuer=i", "--jwt-audience=a"]);
    let line = "migrate --config FILE --database-url postgres://localhost/x";
    assert_eq!(completed("database-url-file = \"f\"\n", line), [""; 0]);
    // A half that the line gives is completed by the half that the file has.
    assert_eq!(
        completed("jwt-audience = \"a\"\n", "serve --config FILE --jwt-issuer i"),
        ["--jwt-audience=a"]
    );
    assert_eq!(
        completed("format = \"csv\"\n", "provider show x --file-only --config FILE"),
        [""; 0]
    );
}

#[test]
fn a_file_that_every_user_can_write_or_that_is_not_there_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("holdfast.toml");
    fs::write(&path, "listen = \"127.0.0.1:1\"\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = File::read(&path, &settings()).unwrap_err().to_string();
    assert!(error.contains("chmod o-w"), "{error}");
    let error = File::read(&folder.path().join("none"), &settings()).unwrap_err();
    assert!(format!("{error:#}").contains("cannot read the config file"), "{error:#}");
}
