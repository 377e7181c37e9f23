//! A task API: cards are redeemed to accounts by their logins. A task is created, and polled by its id. Nothing is
//! deduplicated: the same card twice is two tasks, and the second finds the card used.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::Query,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{money, new_name, sha256};
use crate::{
    book::{Asked, Entry, How, Submitted},
    call::Call,
    cards::code_sha256,
    ledger::{NotDurable, Row, State},
    request::Manners,
    shared::{Shared, lock},
};

/// The most seconds between the items of a task.
const MAX_INTERVAL: u32 = 3600;
/// The most items of a task.
const MAX_ITEMS: usize = 100;

static MANNERS: Manners = Manners {
    busy: || problem(StatusCode::TOO_MANY_REQUESTS, 429, "too many requests"),
    broken: || problem(StatusCode::INTERNAL_SERVER_ERROR, 500, "internal error"),
    half: (StatusCode::OK, "{\"code\":0,\"data\":{\"task_i"),
};

/// The paths.
pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new().route("/api/task", post(create)).route("/api/status", get(status))
}

#[derive(Deserialize)]
struct Task {
    list: Vec<Item>,
    /// Seconds between the items.
    interval: u32,
}

#[derive(Deserialize)]
struct Item {
    username: String,
    password: String,
    pin: String,
}

fn problem(status: StatusCode, code: u32, msg: &str) -> Response {
    (status, Json(json!({"code": code, "msg": msg}))).into_response()
}

/// The answer to a caller whose key is wrong.
fn refusal(call: &Call) -> Option<Response> {
    let key = call.shared.api_key.as_deref();
    let is_good = key.is_none_or(|key| call.header("x-api-key") == key);
    (!is_good).then(|| problem(StatusCode::UNAUTHORIZED, 401, "the api key is wrong"))
}

async fn create(call: Call) -> Response {
    if let Some(refused) = refusal(&call) {
        return refused;
    }
    let invalid = |why| problem(StatusCode::OK, 1001, why);
    let Some(task) = call.json::<Task>() else {
        return invalid("the body is not a task");
    };
    if task.interval > MAX_INTERVAL {
        return invalid("the interval is too long");
    }
    if !(1..=MAX_ITEMS).contains(&task.list.len()) {
        return invalid("the list is empty, or too long");
    }
    let code = task.list[0].pin.clone();
    let apply = |shared, _, how| begin(shared, task, how);
    call.execute(code, &MANNERS, apply).await
}

/// Enters all items into the book, and tells the task once the ledger has them.
async fn begin(shared: Arc<Shared>, task: Task, how: How) -> Result<Response, NotDurable> {
    let task_id = new_name("t-");
    let mut begun = Vec::new();
    for (index, item) in task.list.into_iter().enumerate() {
        let is_login = shared.logins.accept(&item.username, &item.password);
        let refused = if is_login { how.refused } else { Some("ACCOUNT_LOGIN_INVALID") };
        let asked = asked(&shared, item_key(&task_id, index), item);
        // No key was there before.
        if let Submitted::New(entry) = lock(&shared.book).submit(asked, How { refused, ..how }) {
            begun.push(entry);
        }
    }
    shared.durable(&begun).await?;
    let told = shared.clone();
    let task = task_id.clone();
    tokio::spawn(async move { told.tell_ended(&task).await });
    for entry in begun.into_iter().filter(|entry| entry.row.state == State::Processing) {
        shared.clone().finish_later(entry.row);
    }
    Ok(Json(json!({"code": 0, "msg": "ok", "data": {"task_id": task_id}})).into_response())
}

/// The key of a task's item.
fn item_key(task_id: &str, index: usize) -> String {
    if index == 0 { task_id.to_owned() } else { format!("{task_id}.{index}") }
}

fn asked(shared: &Shared, key: String, item: Item) -> Asked {
    Asked {
        provider_ref: Some(key.clone()),
        key,
        payload_sha256: sha256(format!("{}\n{}", item.username, item.pin).as_bytes()),
        code_sha256: code_sha256(&item.pin),
        extra: shared.seal(&item.pin).into_iter().collect(),
        account_ref: item.username,
        expected_currency: None,
        amount_minor: None,
        not_after: None,
    }
}

#[derive(Deserialize)]
struct StatusQuery {
    task_id: String,
}

async fn status(Query(StatusQuery { task_id }): Query<StatusQuery>, call: Call) -> Response {
    if let Some(answer) = refusal(&call).or_else(|| call.struck_look_up(&MANNERS)) {
        return answer;
    }
    let shared = &call.shared;
    let items = items(shared, &task_id);
    let answer = || {
        if items.is_empty() || !items.iter().all(|entry| shared.is_visible(entry)) {
            return problem(StatusCode::OK, 404, "no such task");
        }
        let list: Vec<Value> = items.iter().map(|entry| item(shared, &entry.row)).collect();
        let data = json!({"task_id": task_id, "status": state(shared, &items), "list": list});
        Json(json!({"code": 0, "msg": "ok", "data": data})).into_response()
    };
    call.once_all_durable(&items, answer).await
}

/// What the customer is called about when an item has ended: its task, if that was the last one of it.
pub(in super::super) async fn ended(shared: &Shared, key: &str) -> Option<String> {
    let task_id = key.split('.').next()?;
    let items = items(shared, task_id);
    if items.is_empty() || items.iter().any(|entry| entry.row.state == State::Processing) {
        return None;
    }
    shared.durable(&items).await.ok()?;
    Some(json!({"task_id": task_id, "status": state(shared, &items)}).to_string())
}

/// The items of a task.
fn items(shared: &Shared, task_id: &str) -> Vec<Entry> {
    let book = lock(&shared.book);
    (0..MAX_ITEMS).map_while(|index| book.get(&item_key(task_id, index))).collect()
}

/// How the task stands: completed once all of it has ended and something succeeded.
fn state(shared: &Shared, items: &[Entry]) -> &'static str {
    let is = |state| move |entry: &Entry| entry.row.state == state;
    if items.iter().any(is(State::Processing)) {
        let running_since = items[0].since + shared.processing_time() / 2;
        if OffsetDateTime::now_utc() < running_since { "pending" } else { "running" }
    } else if items.iter().any(is(State::Succeeded)) {
        "completed"
    } else {
        "failed"
    }
}

fn item(shared: &Shared, row: &Row) -> Value {
    let pin = shared.code_of(row).unwrap_or_default();
    let username = row.account_ref.as_deref().unwrap_or_default();
    let result = (row.state != State::Processing).then(|| result(shared, row, &pin).to_string());
    json!({"data_id": format!("{username}:{pin}"), "result": result})
}

/// The result of an item, which is told as text.
fn result(shared: &Shared, row: &Row, pin: &str) -> Value {
    let Some(failure) = &row.failure else {
        return json!({
            "success": true,
            "amount": money::symbol(row.amount_minor, &row.currency_code),
            "balance": money::symbol(row.balance_minor.unwrap_or(0), &row.currency_code),
        });
    };
    let code = match &*failure.code {
        "ACCOUNT_LOGIN_INVALID" => "LOGIN_FAILED",
        "ACCOUNT_LIMIT_REACHED" => "LIMIT_REACHED",
        "ACCOUNT_THROTTLED" => "ACCOUNT_THROTTLED",
        "CODE_USED" => "CODE_SPENT",
        other => other,
    };
    json!({"success": false, "code": code, "message": shared.message(failure, pin)})
}
