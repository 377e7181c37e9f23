//! Compiles the little that is called of etcd's contract.

type AnyError = Box<dyn std::error::Error>;

fn main() -> Result<(), AnyError> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["etcd_lock.proto", "etcd_lease.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
