//! Connections that are lost, and tried again: what a command of long duration does about them.

use std::{error::Error as _, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// How long to wait before the first try to connect again. Doubled with each that fails.
const FIRST_WAIT: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 250 });
/// The longest wait, also when the server asks for more.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Whether calling again may help: the server says so, or the connection broke. Errors that a server sent have no
/// source; those of the connection have.
pub(in crate::cli) fn is_lost(status: &Status) -> bool {
    status.code() == Code::Unavailable
        || status.source().is_some()
        || status.get_details_retry_info().is_some()
}

/// How long to wait after so many losses in a row.
pub(in crate::cli) fn wait(lost: u32, status: &Status) -> Duration {
    let ours = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(lost.saturating_sub(1)));
    let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
    ours.max(asked.unwrap_or_default()).min(MAX_WAIT)
}
