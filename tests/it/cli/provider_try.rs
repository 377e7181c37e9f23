//! `holdfast provider try`, without a server and with one.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use axum::{
    Router,
    extract::RawQuery,
    http::HeaderMap,
    routing::{get, post},
};
use holdfast::{
    rpc::pb,
    simulator::{Api, Simulator, SimulatorArgs, ledger},
};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::{secrets::write_secret, world::World};

const CODE: &str = "ABCD-1234-EFGH";
const SECRET: &str = "hush/hush\"1";

struct Tried {
    code: Option<i32>,
    stdout: String,
    printed: String,
}

impl Tried {
    #[track_caller]
    fn says(&self, code: i32, parts: &[&str]) -> &Self {
        let all = format!("{}\n---\n{}", self.stdout, self.printed);
        assert_eq!(self.code, Some(code), "{all}");
        for part in parts {
            assert!(all.contains(part), "{part:?} is not printed: {all}");
        }
        for hidden in [CODE, "ABCD1234", "abcd", "hush", "hunter22", "issued-token"] {
            assert!(!all.contains(hidden), "{hidden} is printed: {all}");
        }
        self
    }
}

async fn tried(arguments: &[&str], stdin: &str) -> Tried {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(["provider", "try"]).args(arguments);
    for name in ["HOLDFAST_SERVER", "HOLDFAST_SECRETS_DIR", "HOLDFAST_PROVIDER_URL"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let stdin = stdin.to_owned();
    let done = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // One that does not read it has ended by then.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    });
    let done = done.await.unwrap();
    Tried {
        code: done.status.code(),
        stdout: String::from_utf8(done.stdout).unwrap(),
        printed: String::from_utf8(done.stderr).unwrap(),
    }
}

/// A fake of an API, a copy of its profile for it, and its secrets.
struct Fake {
    simulator: Simulator,
    ledger: PathBuf,
    file: String,
    secrets: String,
    text: String,
    _folder: TempDir,
}

async fn fake(api: Api, name: &str) -> Fake {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger");
    let args = SimulatorArgs {
        api,
        currency: "USD".to_owned(),
        api_key: Some(SECRET.to_owned()),
        ..SimulatorArgs::new(ledger.clone())
    };
    let simulator = Simulator::start(&args).await.unwrap();
    let path = format!("{}/profiles/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = with_base(&fs::read_to_string(path).unwrap(), &simulator.url());
    let file = put(folder.path(), "profile.toml", &text);
    for secret in ["access_token", "api_key", "webhook_key", "webhook_url"] {
        put(folder.path(), &format!("secrets/{name}/{secret}"), SECRET);
    }
    let secrets = folder.path().join("secrets").to_str().unwrap().to_owned();
    Fake { simulator, ledger, file, secrets, text, _folder: folder }
}

fn with_base(text: &str, url: &str) -> String {
    let lines = text.lines().map(|line| match line.starts_with("base = ") {
        true => format!("base = \"{url}\"\n"),
        false => format!("{line}\n"),
    });
    lines.collect()
}

fn put(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_secret(&path, text);
    path.to_str().unwrap().to_owned()
}

fn line_of(text: &str, part: &str) -> usize {
    1 + text.lines().position(|line| line.contains(part)).unwrap()
}

#[tokio::test]
async fn an_inquiry_is_shown_with_its_answer_and_how_it_was_judged() {
    let it = fake(Api::Square, "square").await;
    let rule = "eq = { \"/gift_card/state\" = \"ACTIVE\" }";
    let rule = format!("rule: {}:{}", it.file, line_of(&it.text, rule) - 1);
    let url = format!("POST {}/v2/gift-cards/from-gan\n", it.simulator.url());
    let arguments =
        [&*it.file, "--op", "inquire", "--secrets-dir", &it.secrets, "--code-file", "-"];
    tried(&arguments, &format!("{CODE}\n")).await.says(
        0,
        &[
            "square version 1, inquire",
            &url,
            "\nauthorization: Bearer {{ secret.access_token }}\n",
            "\n{\"gan\":\"{{ code }}\"}\n",
            "HTTP/1.1 200\ncontent-type: application/json",
            "\"gan\":\"…\"",
            &rule,
            "take.amount: 1000 (minor units)",
            "take.failure: (not there)",
            "verdict: succeeded: 1000 USD in minor units\n",
        ],
    );
    it.simulator.stop().await.unwrap();
    let arguments = [&arguments[..5], &["--code", CODE]].concat();
    tried(&arguments, "").await.says(1, &["no answer: nothing was sent: it cannot be connected"]);
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once_and_nothing_is_sent() {
    let it = fake(Api::Square, "square").await;
    let none = tried(&[&it.file, "--op", "cancel"], "").await;
    none.says(1, &["square has no op cancel: it has send, find, inquire, list"]);
    let token = tried(&[&it.file, "--op", "token"], "").await;
    token.says(1, &["square has no op token"]);
    let without = tried(&[&it.file, "--op", "send"], "").await;
    without.says(
        1,
        &[
            "secret.access_token is missing",
            "code has no value: give --code-file, or --code",
            "account.id has no value: give --account",
            "expected.minor has no value: give --amount, and --currency",
            "give --spends-the-card",
        ],
    );
    assert_eq!(without.stdout, "");
    let send = ["--op", "send", "--secrets-dir", &it.secrets, "--code", CODE, "--account", "L1"];
    let send = [&[&*it.file], &send[..], &["--amount", "1000"]].concat();
    tried(&send, "").await.says(1, &["outside of Holdfast's books: give --spends-the-card"]);
    let shown = tried(&[&send[..], &["--print-only"]].concat(), "").await;
    shown.says(0, &["which is not sent", "\"gift_card_gan\":\"{{ code }}\"", "\"amount\":1000"]);
    assert!(ledger::read(&it.ledger).unwrap().is_empty(), "nothing was sent");

    let broken = put(Path::new(&it.secrets), "broken.toml", &it.text.replace("[http]", "[htp]"));
    let faults = tried(&[&broken, "--op", "find"], "").await;
    faults.says(1, &[&format!("{broken}:"), "unknown key htp", "faults"]);
    let version = tried(&[&it.file, "--version", "2", "--op", "find"], "").await;
    version.says(1, &["--version is for a provider of the server's"]);
}

#[tokio::test]
async fn a_card_is_spent_only_with_the_flag_that_says_so() {
    let it = fake(Api::Task, "task-api").await;
    let credentials = put(Path::new(&it.secrets), "login", "username=bob\npassword=hunter22\n");
    let send = ["--op", "send", "--secrets-dir", &it.secrets, "--code", CODE, "--spends-the-card"];
    let send = [&[&*it.file], &send[..], &["--credentials-file", &credentials]].concat();
    let sent = tried(&send, "").await;
    let body = "\"password\":\"{{ account.secret.password }}\"";
    sent.says(
        0,
        &[body, "x-api-key: {{ secret.api_key }}", "verdict: processing: ", "take.task: "],
    );
    let task = sent.stdout.lines().find_map(|line| line.strip_prefix("take.task: ")).unwrap();
    let look_up = ["--op", "look-up", "--secrets-dir", &it.secrets, "--code", CODE];
    let look_up = [&[&*it.file], &look_up[..], &["--credentials-file", &credentials]].concat();
    tried(&look_up, "").await.says(1, &["task has no value: give --task"]);
    let told = tried(&[&look_up[..], &["--task", task]].concat(), "").await;
    told.says(0, &["items: ", "verdict: "]);
    assert_eq!(ledger::read(&it.ledger).unwrap().len(), 1, "{}", told.stdout);
}

/// An API with a token that answers repeat, a signature, and a code in the path.
const WITH_TOKEN: &str = r#"
id = "tokens"
version = 1
[http]
base = "http://127.0.0.1:1"
[[auth]]
kind = "token"
path = "/token"
form = { id = "me", secret = "{{ secret.client }}" }
take = { token = "/access_token", expires_in = "/expires_in" }
[[auth]]
kind = "hmac"
secret = "{{ secret.sign }}"
over = "{{ request.path }}"
query = "sign"
[identity]
key = "uuid"
dedup = "none"
window = "1h"
[times]
max_processing = "1m"
[op.send]
path = "/send"
body = { code = "{{ code }}" }
take = { failure = "/f" }
[[op.send.rule]]
when = { status = [200], has = ["/f"] }
then = { failed = { spent = false } }
[op.inquire]
path = "/cards/{{ code }}"
take = { amount = { at = "/amount", unit = "major" }, currency = "/currency", message = "/note" }
[[op.inquire.rule]]
when = { status = [200], eq = { "/ok" = true } }
then = "succeeded"
"#;

#[tokio::test]
async fn tokens_signatures_and_codes_are_blanked_in_answers_too() {
    let token = post(|| async {
        r#"{"access_token":"issued-token","expires_in":600,"type":"Bearer","more":["issued-token-2"]}"#
    });
    let card = get(|headers: HeaderMap, RawQuery(query): RawQuery| async move {
        let bearer = headers["authorization"].to_str().unwrap().to_owned();
        let query = query.unwrap();
        assert!(query.starts_with("sign=") && query.len() > 40, "{query}");
        let body = format!(
            "{{\"ok\":true,\"amount\":\"12.50\",\"currency\":\"EUR\",\"note\":\"abcd 1234 efgh, {bearer}\"}}"
        );
        ([("x-ratelimit-remaining", "7"), ("set-cookie", "hush")], body)
    });
    let app = Router::new().route("/token", token).route("/cards/{code}", card);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let folder = tempfile::tempdir().unwrap();
    let file = put(folder.path(), "p.toml", &with_base(WITH_TOKEN, &url));
    let secrets = folder.path().join("s");
    put(&secrets, "tokens/client", SECRET);
    put(&secrets, "tokens/sign", SECRET);
    let secrets = secrets.to_str().unwrap();

    let inquiry = [&*file, "--op", "inquire", "--secrets-dir", secrets, "--code", CODE];
    tried(&inquiry, "").await.says(
        0,
        &[
            "the request for a token",
            "id=me&secret={{ secret.client }}",
            "a token was given, for 600 s",
            "/cards/{{ code }}?sign={{ signature }}\n",
            "authorization: Bearer {{ token }}",
            "x-ratelimit-remaining: 7",
            "take.message: …, Bearer …",
            "verdict: succeeded: 1250 EUR in minor units",
        ],
    );
    let token = tried(&[&*file, "--op", "token", "--secrets-dir", secrets], "").await;
    token.says(
        0,
        &[
            "tokens version 1, token",
            "\"access_token\":\"…\"",
            "\"type\":\"Bearer\"",
            "a token was given",
        ],
    );
    // One whose pointer is wrong does not print the token either.
    let elsewhere = WITH_TOKEN.replace("/access_token", "/token");
    let elsewhere = put(folder.path(), "e.toml", &with_base(&elsewhere, &url));
    let none = tried(&[&*elsewhere, "--op", "token", "--secrets-dir", secrets], "").await;
    none.says(1, &["no token was given: the answer tells no token", "\"access_token\":\"…\""]);
    let shown = tried(&[&inquiry[..], &["--print-only"]].concat(), "").await;
    shown.says(0, &["for a token, which is not sent", "authorization: Bearer {{ token }}"]);
    // An answer that no rule has.
    let wrong = put(folder.path(), "w.toml", &with_base(&WITH_TOKEN.replace("/ok", "/no"), &url));
    let wrong = [&[&*wrong], &inquiry[1..]].concat();
    tried(&wrong, "").await.says(3, &["rule: none matched", "verdict: in_doubt: HTTP 200"]);
    server.abort();
}

#[tokio::test]
async fn a_provider_of_the_server_is_tried_by_its_id_and_version_and_the_built_in_one_by_its_url() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let it = fake(Api::Square, "square").await;
    let folder = world.args().secrets_dir.as_ref().unwrap();
    for secret in ["access_token", "webhook_key", "webhook_url"] {
        put(folder, &format!("square/{secret}"), SECRET);
    }
    for version in [1, 2] {
        let profile = it.text.replace("version = 1\n", &format!("version = {version}\n"));
        let request = pb::ApplyProviderRequest { profile };
        clients.providers.apply_provider(request).await.unwrap();
    }
    let server = format!("http://{}", world.server(0).addr());
    let inquiry = ["--op", "inquire", "--secrets-dir", &it.secrets, "--code", CODE];
    let inquiry = [&["square", "--server", &server], &inquiry[..]].concat();
    tried(&inquiry, "").await.says(0, &["square version 2, inquire", "verdict: succeeded"]);
    let first = tried(&[&inquiry[..], &["--version", "1"]].concat(), "").await;
    first.says(0, &["square version 1, inquire", "rule: square:"]);
    let none = tried(&[&["nobody"], &inquiry[1..]].concat(), "").await;
    none.says(1, &["PROVIDER_NOT_FOUND"]);

    let url = &world.args().provider.url;
    let built_in = ["holdfast", "--op", "inquire", "--provider-url", url, "--code", CODE];
    tried(&built_in, "").await.says(0, &["holdfast version 1, inquire", "verdict: succeeded"]);
    let (from, to) = ("2026-01-01", "2999-01-01");
    let list = ["holdfast", "--op", "list", "--provider-url", url, "--from", from, "--to", to];
    tried(&list, "").await.says(0, &["the page has 0 elements"]);
}
