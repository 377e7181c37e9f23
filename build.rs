//! Compiles the contract with a parser written in Rust, so that no `protoc` is needed.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use prost::Message as _;
use protox::Compiler;

type AnyError = Box<dyn std::error::Error>;

const PROTOS: [&str; 7] = [
    "holdfast/v1/access.proto",
    "holdfast/v1/common.proto",
    "holdfast/v1/account.proto",
    "holdfast/v1/pool.proto",
    "holdfast/v1/provider.proto",
    "holdfast/v1/redemption.proto",
    "holdfast/v1/subscription.proto",
];

fn main() -> Result<(), AnyError> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=src/health");
    println!("cargo:rerun-if-changed=migrations");
    let mut compiler = Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(PROTOS)?;
    let descriptors = compiler.file_descriptor_set();

    // Served by reflection; comments come along. google.rpc is left out because tonic-types
    // registers the whole of that package.
    let mut served = descriptors.clone();
    served.file.retain(|file| file.package() != "google.rpc");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("holdfast_descriptor.bin"), served.encode_to_vec())?;

    tonic_prost_build::configure()
        .codec_path("crate::rpc::codec::Codec")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        // They hold codes or credentials: `src/rpc/redacted.rs` has their Debug.
        .skip_debug([
            "holdfast.v1.RedeemRequest",
            "holdfast.v1.RedeemCardRequest",
            "holdfast.v1.BatchItem",
            "holdfast.v1.Account",
            "holdfast.v1.CreateTokenResponse",
            "holdfast.v1.CreateSubscriptionResponse",
            "holdfast.v1.RotateSubscriptionSecretResponse",
        ])
        .compile_fds(descriptors)?;
    health(&out_dir)
}

/// The health service, with `List`, which tonic-health does not have.
fn health(out_dir: &Path) -> Result<(), AnyError> {
    let mut compiler = Compiler::new(["src/health"])?;
    compiler.include_source_info(true);
    compiler.open_file("grpc/health/v1/health.proto")?;
    let descriptors = compiler.file_descriptor_set();
    fs::write(out_dir.join("health_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
