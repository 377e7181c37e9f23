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

    /// The files of `google.rpc` under the names that others import them by: tonic-types has them
    /// as `status.proto` and `error_details.proto`, where no client finds them.
    pub fn error_details() -> Result<prost_types::FileDescriptorSet, prost::DecodeError> {
        let encoded = tonic_types::pb::FILE_DESCRIPTOR_SET;
        let mut files: prost_types::FileDescriptorSet = prost::Message::decode(encoded)?;
        for file in files.file.iter_mut().filter(|file| file.package() == "google.rpc") {
            file.name = Some(format!("google/rpc/{}", file.name()));
        }
        Ok(files)
    }
}
