//! `holdfast redemption reverse`: take a success back, or say what became of that.

use clap::{Args, ValueEnum};

use super::print;
use crate::{
    cli::shared::{
        client::{RpcError, ServerArgs, unary},
        output::{FormatArgs, after_change},
        parse,
    },
    domain::id::{Holder, PoolId, RedemptionId},
    rpc::pb,
};

#[derive(Args, Debug)]
pub(in crate::cli) struct ReverseArgs {
    /// The redemption.
    #[arg(value_parser = parse::redemption)]
    redemption: RedemptionId,
    /// Its pool.
    #[arg(long, value_parser = parse::pool)]
    pool: PoolId,
    /// Why: 1 to 1000 characters, kept for good.
    #[arg(long)]
    reason: String,
    /// What was looked at: the provider's own record, a ticket, the name of a picture. 1 to 1000
    /// characters, kept for good. Required with --outcome.
    #[arg(
        long,
        required_if_eq_any([("outcome", "reversed"), ("outcome", "not-reversed")]),
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    evidence: Option<String>,
    /// Nothing is sent: this is what the provider did, by its own records. For a reversal that is in
    /// doubt or needs review, or that was made at the provider itself.
    #[arg(long, value_enum)]
    outcome: Option<Outcome>,
    /// Who says so: 1 to 256 characters.
    #[arg(long, env = "USER", value_parser = parse::holder)]
    by: Holder,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Outcome {
    /// The provider has taken it back.
    Reversed,
    /// The provider has not taken it back, and will not.
    NotReversed,
}

/// The state of a reversal.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum State {
    /// The provider is being asked.
    Requested,
    /// The outcome is being found out.
    InDoubt,
    /// A person decides.
    NeedsReview,
    /// It was taken back.
    Succeeded,
    /// It was not taken back.
    Failed,
}

impl From<State> for pb::ReversalState {
    fn from(state: State) -> Self {
        match state {
            State::Requested => Self::Requested,
            State::InDoubt => Self::InDoubt,
            State::NeedsReview => Self::NeedsReview,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
        }
    }
}

/// Asks for it, and prints the redemption as it is then.
pub(super) async fn run(args: ReverseArgs) -> anyhow::Result<()> {
    let server = args.server.connect().await?;
    let outcome = match args.outcome {
        None => pb::ReversalOutcome::Unspecified,
        Some(Outcome::Reversed) => pb::ReversalOutcome::Reversed,
        Some(Outcome::NotReversed) => pb::ReversalOutcome::NotReversed,
    };
    let request = pb::ReverseRedemptionRequest {
        pool_id: args.pool.to_string(),
        redemption_id: args.redemption.to_string(),
        reason: args.reason,
        reversed_by: args.by.to_string(),
        evidence: args.evidence.unwrap_or_default(),
        outcome: outcome.into(),
    };
    let reply = server.redemptions().reverse_redemption(unary(request)).await.map_err(RpcError)?;
    after_change(print(args.format, reply, |reply| reply.redemption))
}
