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
mod status;

/// The contract, as compiled from `proto/`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, unreachable_pub)]
pub mod pb {
    tonic::include_proto!("holdfast.v1");

    /// The contract's descriptors, for reflection.
    pub const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/holdfast_descriptor.bin"));

    /// Whether the contract has a method: the names in a call's path are the caller's.
    pub fn has_method(service: &str, method: &str) -> bool {
        use prost::Message as _;
        static METHODS: std::sync::LazyLock<std::collections::HashSet<(String, String)>> =
            std::sync::LazyLock::new(|| {
                let files = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
                let services = files.file.iter().flat_map(|file| {
                    file.service.iter().map(move |service| (file.package(), service))
                });
                services
                    .flat_map(|(package, service)| {
                        let name = format!("{package}.{}", service.name());
                        let methods = service.method.iter();
                        methods.map(move |method| (name.clone(), method.name().to_owned()))
                    })
                    .collect()
            });
        METHODS.contains(&(service.to_owned(), method.to_owned()))
    }
}
