//! The contract's methods, as its descriptors have them.

use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use super::pb;

/// A method.
#[derive(Debug)]
pub(super) struct Method {
    /// Its service's full name.
    pub(super) service: String,
    pub(super) name: String,
    /// Whether its callers send several messages.
    pub(super) takes_stream: bool,
    /// Where its (first) request names the pool that it is about: the numbers of fields, each inside the one
    /// before. Empty when it names none.
    pub(super) pool_path: Vec<u32>,
}

/// The field of a message that names a pool.
const POOL_ID: &str = "pool_id";
/// No name of a pool is longer, in bytes.
const MAX_POOL_ID: usize = 256;

/// All methods.
pub(super) fn all() -> Vec<Method> {
    let set = FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap_or_default();
    let services = set.file.iter().flat_map(|file| {
        file.service.iter().map(move |service| (file.package().to_owned(), service))
    });
    services.flat_map(|(package, service)| methods_of(&set, &package, service)).collect()
}

fn methods_of(
    set: &FileDescriptorSet,
    package: &str,
    service: &ServiceDescriptorProto,
) -> Vec<Method> {
    let method = |method: &MethodDescriptorProto| Method {
        service: format!("{package}.{}", service.name()),
        name: method.name().to_owned(),
        takes_stream: method.client_streaming(),
        pool_path: message(set, method.input_type())
            .map(|input| pool_path(set, input))
            .unwrap_or_default(),
    };
    service.method.iter().map(method).collect()
}

fn message<'a>(set: &'a FileDescriptorSet, full_name: &str) -> Option<&'a DescriptorProto> {
    let full_name = full_name.trim_start_matches('.');
    set.file.iter().find_map(|file| {
        let name = full_name.strip_prefix(file.package())?.strip_prefix('.')?;
        file.message_type.iter().find(|message| message.name() == name)
    })
}

/// In the message itself, or else in the first message inside it that names one.
fn pool_path(set: &FileDescriptorSet, input: &DescriptorProto) -> Vec<u32> {
    if let Some(number) = pool_field(input) {
        return vec![number];
    }
    let inner = input
        .field
        .iter()
        .filter(|field| field.r#type() == Type::Message && field.label() != Label::Repeated);
    let named = inner.filter_map(|field| {
        let pool = pool_field(message(set, field.type_name())?)?;
        Some(vec![u32::try_from(field.number()).ok()?, pool])
    });
    named.into_iter().next().unwrap_or_default()
}

fn pool_field(message: &DescriptorProto) -> Option<u32> {
    let field = message.field.iter().find(|field| field.name() == POOL_ID)?;
    u32::try_from(field.number()).ok()
}

impl Method {
    /// The pool that a request names. `None` where there is none, or the request cannot be read: its codec
    /// says so.
    pub(super) fn pool<'a>(&self, request: &'a [u8]) -> Option<&'a str> {
        let name = std::str::from_utf8(find(request, &self.pool_path)?).ok()?;
        (!name.is_empty() && name.len() <= MAX_POOL_ID).then_some(name)
    }
}

/// The last field at `path` of an encoded message. That is the one which counts.
fn find<'a>(mut message: &'a [u8], path: &[u32]) -> Option<&'a [u8]> {
    let (first, inner) = path.split_first()?;
    let mut found = None;
    // Groups have gone from the language, but a message may hold unknown ones.
    let mut groups = 0_u32;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => drop(varint(&mut message)?),
            1 => drop(take(&mut message, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let value = take(&mut message, length)?;
                if groups == 0 && key >> 3 == u64::from(*first) {
                    let here = if inner.is_empty() { Some(value) } else { find(value, inner) };
                    found = here.or(found);
                }
            }
            3 => groups += 1,
            4 => groups = groups.checked_sub(1)?,
            5 => drop(take(&mut message, 4)?),
            _ => return None,
        }
    }
    found
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(message: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(bytes)?;
    *message = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn pool_of(name: &str, request: &impl Message) -> Option<String> {
        let methods = all();
        let method = methods.iter().find(|method| method.name == name).unwrap();
        method.pool(&request.encode_to_vec()).map(str::to_owned)
    }

    #[test]
    fn every_method_but_those_of_all_pools_names_its_pool() {
        let without: Vec<_> =
            all().into_iter().filter(|method| method.pool_path.is_empty()).collect();
        let names: Vec<_> = without.iter().map(|method| &*method.name).collect();
        let of_providers = ["ApplyProvider", "CheckProvider", "GetProvider", "ListProviders"];
        let of_tokens = ["CreateToken", "ListTokens", "RevokeToken"];
        assert_eq!(names, [&of_tokens[..], &["ListPools"], &of_providers].concat());
        let streams: Vec<_> = all().into_iter().filter(|method| method.takes_stream).collect();
        let mut names: Vec<_> = streams.iter().map(|method| &*method.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["BatchRedeem", "ImportAccounts"]);
    }

    #[test]
    fn the_pool_is_found_wherever_the_request_has_it() {
        let acquire = pb::AcquireAccountRequest {
            request_id: "r".into(),
            pool_id: "p".into(),
            holder: "h".into(),
            lease_duration: Some(prost_types::Duration { seconds: 5, nanos: 1 }),
            ..Default::default()
        };
        assert_eq!(pool_of("AcquireAccount", &acquire).as_deref(), Some("p"));
        let lease = pb::LeaseRef { pool_id: "q".into(), account_id: "a".into(), fencing_token: 7 };
        let redeem = pb::RedeemRequest { lease: Some(lease), ..Default::default() };
        assert_eq!(pool_of("Redeem", &redeem).as_deref(), Some("q"));
        let open = pb::BatchOpen { pool_id: "r".into(), ..Default::default() };
        let open = pb::batch_redeem_request::Message::Open(open);
        let open = pb::BatchRedeemRequest { message: Some(open) };
        assert_eq!(pool_of("BatchRedeem", &open).as_deref(), Some("r"));
        let account = pb::Account { pool_id: "s".into(), ..Default::default() };
        let import = pb::ImportAccountsRequest { account: Some(account) };
        assert_eq!(pool_of("ImportAccounts", &import).as_deref(), Some("s"));
    }

    #[test]
    fn what_cannot_be_read_names_no_pool() {
        let methods = all();
        let method = methods.iter().find(|method| method.name == "AcquireAccount").unwrap();
        let good = pb::AcquireAccountRequest { pool_id: "pool".into(), ..Default::default() };
        let good = good.encode_to_vec();
        assert_eq!(method.pool(&good), Some("pool"));
        assert_eq!(method.pool(&good[..good.len() - 1]), None, "cut off");
        assert_eq!(method.pool(&[0xff; 64]), None);
        // An unknown group, with what looks like a pool in it, comes first.
        let group = [&[0xfb, 0x01][..], &good, &[0xfc, 0x01]].concat();
        let other = pb::AcquireAccountRequest { pool_id: "other".into(), ..Default::default() };
        let after = [group, other.encode_to_vec()].concat();
        assert_eq!(method.pool(&after), Some("other"));
        assert_eq!(method.pool(b""), None);
        let long = pb::AcquireAccountRequest { pool_id: "x".repeat(9999), ..Default::default() };
        assert_eq!(method.pool(&long.encode_to_vec()), None);
    }
}
