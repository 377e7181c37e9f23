//! THE error table: what each error is to a gRPC client. Nothing else makes a [`Status`].

use prost::DecodeError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// A reply that could not be written: a bug of ours.
pub(crate) fn unencodable() -> Status {
    Status::new(Code::Internal, "the reply could not be encoded")
}

/// A message that is not protobuf, or holds text that is not UTF-8.
pub(crate) fn undecodable(error: &DecodeError) -> Status {
    let why = format!("cannot be read as the RPC's request: {error}");
    Status::with_error_details(
        Code::InvalidArgument,
        format!("the message {why}"),
        ErrorDetails::with_bad_request_violation("message", why),
    )
}

/// A message above the limit.
pub(crate) fn message_too_large(bytes: usize, max_bytes: usize) -> Status {
    let why = format!("is {bytes} bytes long; at most {max_bytes} are read");
    Status::with_error_details(
        Code::InvalidArgument,
        format!("the message {why}"),
        ErrorDetails::with_bad_request_violation("message", why),
    )
}
