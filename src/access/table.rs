//! THE table of access: which role each RPC needs, and where.
//!
//! The pool that a request is about is found by the contract's descriptors: the field `pool_id` of the (first)
//! request, or of a message in it. The table names what is otherwise. An RPC without a row is not served: the
//! server does not start.

use crate::domain::access::{Need, Role};

/// Where a role must be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// On the pool that the request names. One that names none is about all pools.
    ItsPool,
    /// On the pool that the request names; where it names none, on some pool, and the answer has no other.
    ItsPoolOrSome,
    /// On some pool. The answer has what one may see, or what is of no pool.
    Some,
    /// On all pools.
    All,
}

/// What an RPC needs.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The RPC.
    pub rpc: &'static str,
    /// The role.
    pub need: Need,
    /// Where.
    pub r#where: Where,
    /// Whether it may go on for long: it ends when what its caller showed is revoked or expires.
    pub lasts: bool,
}

const ANY: Need = Need::Any;
const REDEEMER: Need = Need::Role(Role::Redeemer);
const OPERATOR: Need = Need::Role(Role::Operator);
const AUDITOR: Need = Need::Role(Role::Auditor);
const ADMIN: Need = Need::Role(Role::Admin);

/// All rows.
pub const TABLE: &[Row] = &[
    // RedemptionService
    lasting("AcquireAccount", REDEEMER),
    row("ExplainAcquire", ANY),
    row("RenewLease", REDEEMER),
    row("Redeem", REDEEMER),
    lasting("RedeemCard", REDEEMER),
    row("ReleaseAccount", REDEEMER),
    lasting("BatchRedeem", REDEEMER),
    row("GetRedemption", ANY),
    lasting("AwaitRedemption", ANY),
    row("ListRedemptions", AUDITOR),
    // Of others' redemptions nothing, as GetRedemption.
    lasting("WatchRedemptions", ANY),
    row("ResolveRedemption", OPERATOR),
    row("ReverseRedemption", OPERATOR),
    // AccountService
    row("CreateAccount", OPERATOR),
    // Each message is checked too, where it is read.
    lasting("ImportAccounts", OPERATOR),
    row("GetAccount", ANY),
    row("ListAccounts", AUDITOR),
    row("UpdateAccount", OPERATOR),
    row("CorrectBalance", OPERATOR),
    row("ListAccountEvents", AUDITOR),
    // PoolService
    row("CreatePool", OPERATOR),
    row("GetPool", ANY),
    at("ListPools", ANY, Where::Some),
    row("UpdatePool", OPERATOR),
    row("DeletePool", ADMIN),
    row("CreatePlan", OPERATOR),
    row("GetPlan", ANY),
    row("ListPlans", ANY),
    row("UpdatePlan", OPERATOR),
    row("DeletePlan", OPERATOR),
    // ProviderService
    at("ApplyProvider", ADMIN, Where::All),
    // Its faults name pools, of all there are.
    at("CheckProvider", AUDITOR, Where::All),
    at("GetProvider", AUDITOR, Where::Some),
    at("ListProviders", AUDITOR, Where::Some),
    // SubscriptionService
    row("CreateSubscription", OPERATOR),
    row("GetSubscription", AUDITOR),
    row("ListSubscriptions", AUDITOR),
    row("UpdateSubscription", OPERATOR),
    row("RotateSubscriptionSecret", OPERATOR),
    row("DeleteSubscription", OPERATOR),
    row("ListDeliveries", AUDITOR),
    row("RetryDeliveries", OPERATOR),
    // AccessService
    at("CreateToken", ADMIN, Where::All),
    at("ListTokens", ADMIN, Where::All),
    at("RevokeToken", ADMIN, Where::All),
    at("ListAuditEvents", AUDITOR, Where::ItsPoolOrSome),
];

const fn row(rpc: &'static str, need: Need) -> Row {
    at(rpc, need, Where::ItsPool)
}

const fn at(rpc: &'static str, need: Need, r#where: Where) -> Row {
    Row { rpc, need, r#where, lasts: false }
}

const fn lasting(rpc: &'static str, need: Need) -> Row {
    Row { rpc, need, r#where: Where::ItsPool, lasts: true }
}

/// The row of an RPC.
pub fn row_of(rpc: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.rpc == rpc)
}
