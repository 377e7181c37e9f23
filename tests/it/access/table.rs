//! Every RPC of the contract, by every role, on its own pools and on others.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast::{
    access::table::{TABLE, Where, row_of},
    rpc::pb::{self, Role},
};
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use tonic::{Code, Request, client::Grpc};

use super::{admin, caller, world};
use crate::support::{caller::Caller, raw_grpc::Raw};

/// Who may call each RPC: r redeemer, o operator, a auditor, A admin. On pools that were granted to them, where the RPC
/// is about a pool. `*`: on all pools alone.
const EXPECTED: &[(&str, &str)] = &[
    ("AcquireAccount", "roA"),
    ("ExplainAcquire", "roaA"),
    ("RenewLease", "roA"),
    ("Redeem", "roA"),
    ("RedeemCard", "roA"),
    ("ReleaseAccount", "roA"),
    ("BatchRedeem", "roA"),
    ("GetRedemption", "roaA"),
    ("AwaitRedemption", "roaA"),
    ("ListRedemptions", "oaA"),
    ("WatchRedemptions", "roaA"),
    ("ResolveRedemption", "oA"),
    ("ReverseRedemption", "oA"),
    ("CreateAccount", "oA"),
    ("ImportAccounts", "oA"),
    ("GetAccount", "roaA"),
    ("ListAccounts", "oaA"),
    ("UpdateAccount", "oA"),
    ("CorrectBalance", "oA"),
    ("ListAccountEvents", "oaA"),
    ("CreatePool", "oA"),
    ("GetPool", "roaA"),
    ("ListPools", "roaA"),
    ("UpdatePool", "oA"),
    ("DeletePool", "A"),
    ("CreatePlan", "oA"),
    ("GetPlan", "roaA"),
    ("ListPlans", "roaA"),
    ("UpdatePlan", "oA"),
    ("DeletePlan", "oA"),
    ("ApplyProvider", "A*"),
    ("CheckProvider", "oaA*"),
    ("GetProvider", "oaA"),
    ("ListProviders", "oaA"),
    ("CreateSubscription", "oA"),
    ("GetSubscription", "oaA"),
    ("ListSubscriptions", "oaA"),
    ("UpdateSubscription", "oA"),
    ("RotateSubscriptionSecret", "oA"),
    ("DeleteSubscription", "oA"),
    ("ListDeliveries", "oaA"),
    ("RetryDeliveries", "oA"),
    ("CreateToken", "A*"),
    ("ListTokens", "A*"),
    ("RevokeToken", "A*"),
    ("ListAuditEvents", "oaA"),
];

const ROLES: [(Role, char); 4] =
    [(Role::Redeemer, 'r'), (Role::Operator, 'o'), (Role::Auditor, 'a'), (Role::Admin, 'A')];
const OWN: &str = "own-1";
const OTHER: &str = "other-1";

struct Rpc {
    path: String,
    name: String,
    /// Every place in the request where a pool is named: the numbers of fields, and their names.
    pools: Vec<(Vec<u32>, String)>,
}

fn rpcs() -> Vec<Rpc> {
    let set = FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap();
    let mut messages = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            add(&format!(".{}", file.package()), message, &mut messages);
        }
    }
    let mut rpcs = Vec::new();
    for file in set.file.iter().filter(|file| file.package() == "holdfast.v1") {
        for service in &file.service {
            for method in &service.method {
                let mut pools = Vec::new();
                find(&messages, method.input_type(), &mut Vec::new(), "", &mut pools);
                // The one nearest to the top is checked.
                pools.sort_by_key(|(path, _)| path.len());
                rpcs.push(Rpc {
                    path: format!("/holdfast.v1.{}/{}", service.name(), method.name()),
                    name: method.name().to_owned(),
                    pools,
                });
            }
        }
    }
    assert!(rpcs.len() > 30);
    rpcs
}

fn add<'a>(
    scope: &str,
    message: &'a DescriptorProto,
    messages: &mut BTreeMap<String, &'a DescriptorProto>,
) {
    let name = format!("{scope}.{}", message.name());
    for inner in &message.nested_type {
        add(&name, inner, messages);
    }
    messages.insert(name, message);
}

fn find(
    messages: &BTreeMap<String, &DescriptorProto>,
    message: &str,
    path: &mut Vec<u32>,
    names: &str,
    found: &mut Vec<(Vec<u32>, String)>,
) {
    assert!(path.len() < 6, "{names}");
    let Some(message) = messages.get(message) else { return };
    for field in &message.field {
        path.push(field.number().try_into().unwrap());
        let name = format!("{names}{}", field.name());
        if field.name() == "pool_id" || field.name().ends_with("_pool_id") {
            found.push((path.clone(), name));
        } else if field.r#type() == Type::Message {
            find(messages, field.type_name(), path, &format!("{name}."), found);
        }
        path.pop();
    }
}

/// A request that names a pool, and nothing else.
fn request(path: &[u32], pool_id: &str) -> Vec<u8> {
    let Some((number, inner)) = path.split_first() else { return Vec::new() };
    let value =
        if inner.is_empty() { pool_id.as_bytes().to_vec() } else { request(inner, pool_id) };
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | 2), &mut bytes);
    prost::encoding::encode_varint(value.len() as u64, &mut bytes);
    bytes.extend(value);
    bytes
}

/// The code of a call with one message; a stream of one looks alike.
async fn call(caller: &Caller, rpc: &Rpc, pool_id: &str) -> Code {
    let mut grpc = Grpc::new(caller.connection.clone());
    grpc.ready().await.unwrap();
    let path = rpc.pools.first().map_or(&[][..], |(path, _)| path);
    let message = Request::new(Bytes::from(request(path, pool_id)));
    let path: PathAndQuery = rpc.path.parse().unwrap();
    match grpc.server_streaming(message, path, Raw).await {
        Err(error) => error.code(),
        Ok(answer) => answer.into_inner().message().await.err().map_or(Code::Ok, |e| e.code()),
    }
}

fn is_allowed(code: Code) -> bool {
    assert_ne!(code, Code::Unauthenticated);
    assert_ne!(code, Code::Internal);
    code != Code::PermissionDenied
}

#[tokio::test]
async fn every_rpc_asks_for_its_role_on_its_pool() {
    let world = world(1, |_| {}).await;
    let mut admin = admin(&world).await;
    for pool_id in [OWN, OTHER] {
        admin.create_pool(pool_id).await.unwrap();
    }
    let nobody = Caller::showing(world.channel(0).await, None);
    let mut callers = Vec::new();
    for (role, letter) in ROLES {
        for (kind, pattern) in [("own", "own-*"), ("all", "*")] {
            let name = format!("{kind}-{}", letter as u32);
            let secret = admin.create_token(&name, &[(role, pattern)], None).await.unwrap();
            callers.push((letter, pattern == "*", caller(&world, 0, &secret).await));
        }
    }
    for rpc in rpcs() {
        let expected = EXPECTED.iter().find(|(name, _)| *name == rpc.name);
        let (_, expected) = expected.unwrap_or_else(|| panic!("{} is not expected", rpc.name));
        let row = row_of(&rpc.name).unwrap_or_else(|| panic!("{} has no row", rpc.name));
        assert_eq!(call(&nobody, &rpc, OWN).await, Code::Unauthenticated, "{}", rpc.name);
        for (letter, has_all, caller) in &callers {
            for pool_id in [OWN, OTHER] {
                let names_pool = !rpc.pools.is_empty();
                let on_pool = *has_all || !names_pool || pool_id == OWN;
                let on_all = *has_all || !expected.ends_with('*');
                let may = expected.contains(*letter) && on_pool && on_all;
                let code = call(caller, &rpc, pool_id).await;
                let told =
                    format!("{} by {letter} (all: {has_all}) on {pool_id}: {code:?}", rpc.name);
                assert_eq!(is_allowed(code), may, "{told}");
            }
        }
        assert_eq!(row.r#where == Where::All, expected.ends_with('*'), "{}", rpc.name);
    }
    assert_eq!(EXPECTED.len(), TABLE.len());
}

#[test]
fn no_field_but_the_one_that_is_checked_leads_to_another_pool() {
    /// Output of the server's, which requests may repeat: they are refused or passed over.
    const NOT_READ: [&str; 1] = ["account.lease.ref.pool_id"];
    for rpc in rpcs() {
        let others = rpc.pools.iter().skip(1).map(|(_, name)| &**name);
        let others: Vec<_> = others.filter(|name| !NOT_READ.contains(name)).collect();
        assert!(others.is_empty(), "{}: {others:?} besides {:?}", rpc.name, rpc.pools[0]);
    }
}
