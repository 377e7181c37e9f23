//! The gRPC face: reads requests, calls one service each, writes answers. The only code that knows
//! tonic and prost.

pub mod account;
mod batch;
pub mod codec;
mod convert;
mod explain;
pub mod layers;
mod mask;
mod plan;
pub mod pool;
mod redacted;
pub mod redemption;
pub mod reflection;
mod refusal;
mod status;

/// How much of one stream's messages, in bytes, may wait to be read. It is HTTP/2's own default: of small
/// messages, such as the items of a batch, one or two thousand.
pub const STREAM_WINDOW: u32 = 65_535;
/// The same for all streams of a connection. The library below, h2, counts small frames that wait for more than
/// their bytes, against half of this, and ends a connection on which there are too many; with windows of one size
/// a client that sends items faster than they are taken loses it. This is enough for some ninety such streams.
pub const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// The contract, as compiled from `proto/`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, unreachable_pub)]
pub mod pb {
    tonic::include_proto!("holdfast.v1");

    /// The contract's descriptors, for reflection.
    pub const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/holdfast_descriptor.bin"));

    /// The contract's methods, each with its service's full name.
    pub fn methods() -> Vec<(String, String)> {
        use prost::Message as _;
        let files = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
        let services = files
            .file
            .iter()
            .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
        services
            .flat_map(|(package, service)| {
                let name = format!("{package}.{}", service.name());
                let methods = service.method.iter();
                methods.map(move |method| (name.clone(), method.name().to_owned()))
            })
            .collect()
    }
}
