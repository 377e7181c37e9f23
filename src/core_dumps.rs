//! Core dumps, which would write keys and codes to a disk: off, for this program and for what it starts.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Lets the kernel write no core dump of this process, nor of its children.
///
/// # Errors
/// When the kernel refuses.
pub fn turn_off() -> std::io::Result<()> {
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}

/// Lets no other process of the same user read this one's memory, and no handler of core dumps get it: a pipe gets
/// dumps in spite of the limit. Linux alone has this. A child that runs another program is not bound by it.
///
/// # Errors
/// When the kernel refuses.
pub fn hide_memory() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
