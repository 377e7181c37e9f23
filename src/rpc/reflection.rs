//! Reflection: what lets a client do everything without files of ours.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic_reflection::server::{
    Builder,
    v1::{ServerReflection, ServerReflectionServer},
    v1alpha,
};

use super::{health, pb};

/// The reflection service that clients of today ask.
pub fn v1() -> anyhow::Result<ServerReflectionServer<impl ServerReflection>> {
    Ok(builder()?.build_v1()?)
}

/// The one that older clients ask.
pub fn v1alpha() -> anyhow::Result<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>>
{
    Ok(builder()?.build_v1alpha()?)
}

/// The contract, the error details, so that clients can print them, and health.
fn builder() -> anyhow::Result<Builder<'static>> {
    Ok(Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_file_descriptor_set(error_details()?)
        .register_encoded_file_descriptor_set(health::DESCRIPTORS))
}

/// The files of `google.rpc` under the names that others import them by: tonic-types has them as
/// `status.proto` and `error_details.proto`, where no client finds them.
fn error_details() -> anyhow::Result<FileDescriptorSet> {
    let mut files = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
    for file in files.file.iter_mut().filter(|file| file.package() == "google.rpc") {
        file.name = Some(format!("google/rpc/{}", file.name()));
    }
    Ok(files)
}
