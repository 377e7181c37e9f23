//! The gRPC services: they read requests, call one service each, and write answers. The only code that knows
//! tonic and prost.

pub mod access;
pub mod account;
mod answer;
mod audit_events;
pub mod codec;
mod convert;
mod ended;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod in_time;
pub mod layers;
mod mask;
mod message;
mod methods;
mod page;
mod plan;
pub mod pool;
pub mod provider;
mod redacted;
pub mod redemption;
pub mod reflection;
mod refusal;
pub(crate) mod status;
pub mod subscription;

/// The longest request, in bytes. It is refused by its length, before tonic would.
pub const MAX_REQUEST_BYTES: usize = codec::MAX_MESSAGE_BYTES;
/// The longest answer, in bytes: as long as clients read unless they are told otherwise. Pages and imports are cut
/// at a quarter of it.
pub const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// The header in which the answers of ListPools tell the server's version, for `holdfast doctor`.
pub const VERSION_HEADER: &str = "holdfast-version";

/// How much of one stream's messages, in bytes, may wait to be read. It is HTTP/2's own default: of small
/// messages, such as the items of a batch, one or two thousand.
pub const STREAM_WINDOW: u32 = 65_535;
/// The same for all streams of a connection. h2 counts small frames that wait for more than their bytes, against
/// half of this. It ends a connection on which there are too many. With windows of one size a client that sends
/// items faster than they are taken loses it. This is enough for some ninety such streams.
pub const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// The protocol of health, as compiled from `src/health/`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, unreachable_pub)]
pub mod health {
    tonic::include_proto!("grpc.health.v1");

    /// Its descriptors, for reflection.
    pub const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/health_descriptor.bin"));
}

/// The contract, as compiled from `proto/`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, unreachable_pub)]
pub mod pb {
    tonic::include_proto!("holdfast.v1");

    /// The contract's descriptors, for reflection.
    pub const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/holdfast_descriptor.bin"));
}
