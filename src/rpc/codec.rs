//! Protobuf as tonic's own codec has it, but a message that cannot be read is the caller's mistake:
//! it gets `INVALID_ARGUMENT`, where tonic would say `INTERNAL`.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// The largest message that is read, in bytes. A larger one is refused by the length that it begins with
/// ([`message`](super::message)).
pub(super) const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// A buffer for a message begins with this many bytes, which are enough for nearly every message of ours,
/// and grows. tonic's own begin with eight times as much, for each request and for each answer.
const BUFFER_BYTES: usize = 1024;
/// An answer of many messages is handed on when this much of it is encoded; as tonic has it.
const YIELD_BYTES: usize = 32 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Codec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for Codec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> tonic::codec::Codec for Codec<E, D>
where
    E: Message + Send + 'static,
    D: Message + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<E: Message + Send + 'static, D> Encoder for Codec<E, D> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buf).map_err(|_| crate::rpc::status::unencodable())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

impl<E, D: Message + Default + Send + 'static> Decoder for Codec<E, D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        D::decode(buf).map(Some).map_err(|error| crate::rpc::status::undecodable(&error))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
