//! A person's word that contradicts what is recorded: what is recorded is said, and asked about.

use tonic::Status;
use tonic_types::StatusExt as _;

use super::find::get;
use crate::{
    cli::shared::{
        client::{RpcError, Server},
        output::{confirm, note},
    },
    rpc::pb,
};

/// What is recorded otherwise.
pub(super) enum Contradiction {
    /// This, of an outcome that is open.
    Record(Vec<String>),
    /// What a person said before, under this number.
    Word(i32, String),
}

impl Contradiction {
    /// Has the request say that the record is wrong.
    pub(super) fn insist(self, request: &mut pb::ResolveRedemptionRequest) {
        match self {
            Self::Record(_) => request.recorded_amount_is_wrong = true,
            Self::Word(number, _) => request.corrects_resolution = number,
        }
    }
}

/// What a refused word contradicts; nothing where it was refused for another reason, or insisting is of no use.
pub(super) async fn of(
    server: &Server,
    request: &pb::ResolveRedemptionRequest,
    refused: &Status,
) -> anyhow::Result<Option<Contradiction>> {
    let details = refused.get_error_details();
    let violations = details.bad_request().map(|it| &it.field_violations[..]).unwrap_or_default();
    let is_of_record = |rule: &str| rule.contains("set recorded_amount_is_wrong");
    if !violations.is_empty() && !request.recorded_amount_is_wrong {
        if !violations.iter().all(|it| is_of_record(&it.description)) {
            return Ok(None);
        }
        let told = |rule: &str| rule.split("; if that is wrong").next().unwrap_or(rule).to_owned();
        let told = violations.iter().map(|it| format!("{} {}", it.field, told(&it.description)));
        return Ok(Some(Contradiction::Record(told.collect())));
    }
    let is_settled =
        details.error_info().is_some_and(|info| info.reason == "REDEMPTION_ALREADY_SETTLED");
    if !is_settled || request.corrects_resolution != 0 {
        return Ok(None);
    }
    let read = get(server, &request.pool_id, &request.redemption_id).await.map_err(RpcError)?;
    let redemption = read.into_inner().redemption.unwrap_or_default();
    let word = redemption.resolution.as_ref().filter(|resolution| resolution.number > 0);
    Ok(word.map(|word| Contradiction::Word(word.number, said(&redemption, word))))
}

fn said(redemption: &pb::Redemption, word: &pb::Resolution) -> String {
    let state = redemption.state().as_str_name().trim_start_matches("REDEMPTION_STATE_");
    let amount = redemption.amount.as_ref().filter(|_| redemption.failure.is_none());
    let amount = amount
        .map(|it| format!(" with {} {}", it.amount_minor, it.currency_code))
        .unwrap_or_default();
    let pb::Resolution { resolved_by, reason, evidence, number, .. } = word;
    format!("{state}{amount}, by resolution {number} of {resolved_by}: {reason} ({evidence})")
}

/// Says what is recorded, and asks on a terminal. Elsewhere the answer is no.
pub(super) fn ask(said: &Contradiction) -> bool {
    let question = match said {
        Contradiction::Record(told) => {
            told.iter().for_each(note);
            "Record it all the same?"
        }
        Contradiction::Word(_, said) => {
            note(format_args!("recorded: {said}"));
            "Correct that? It stays in the redemption's history."
        }
    };
    let answer = confirm(question);
    if answer.is_none() {
        note("nothing was recorded; --yes does it without asking");
    }
    answer.unwrap_or(false)
}
