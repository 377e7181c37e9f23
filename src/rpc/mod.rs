//! The gRPC face: reads requests, calls one service each, writes answers. The only code that knows
//! tonic and prost.

pub mod account;
mod batch;
pub mod codec;
mod convert;
pub mod layers;
mod mask;
pub mod pool;
pub mod redemption;
mod status;

/// The contract, as compiled from `proto/`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, unreachable_pub)]
pub mod pb {
    tonic::include_proto!("holdfast.v1");

    /// The contract's descriptors, for reflection.
    pub const DESCRIPTORS: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/holdfast_descriptor.bin"));
}
