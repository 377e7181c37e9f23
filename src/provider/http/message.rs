//! An answer's head and body, read from bytes as they come. Pure.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use httparse::Status;

/// The longest head that is read, with those of the interim answers before it.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most lines of a head.
const MAX_HEADERS: usize = 100;
/// The longest line about a chunk, and the most of what follows the last one.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// What the head of an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// `Retry-After`, where it is a number of seconds. A date would need the two clocks to agree.
    pub(super) retry_after: Option<Duration>,
    pub(super) framing: Framing,
    /// Whether another request may follow.
    pub(super) keep_alive: bool,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Takes the head of the answer off `raw`; `None` when it is not all there yet. The error says what is
/// not HTTP.
pub(super) fn read_head(raw: &mut BytesMut) -> Result<Option<Head>, String> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        let length = match answer.parse(raw) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(format!("the answer is not HTTP: {error}")),
        };
        let status = answer.code.unwrap_or_default();
        // "Early hints" and the like come before the answer.
        let is_interim = (100..200).contains(&status) && status != 101;
        let head = if is_interim { None } else { Some(understood(&answer, status)?) };
        raw.advance(length);
        if head.is_some() {
            return Ok(head);
        }
    }
}

fn understood(answer: &httparse::Response<'_, '_>, status: u16) -> Result<Head, String> {
    let is_1_1 = answer.version == Some(1);
    let all = |name| values(answer.headers, name);
    let close = all("connection").any(|value| {
        std::str::from_utf8(value).is_ok_and(|value| {
            value.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"))
        })
    });
    let retry_after = all("retry-after").next().and_then(|value| {
        std::str::from_utf8(value).ok()?.trim().parse().ok().map(Duration::from_secs)
    });
    let length = content_length(all("content-length"))?;
    let mut encodings = all("transfer-encoding");
    let (framing, is_plain) = match (encodings.next(), length) {
        // These have no body, whatever they say.
        _ if matches!(status, 101 | 204 | 304) => (Framing::Length(0), status != 101),
        (Some(value), _) if !is_1_1 || encodings.next().is_some() || !is_chunked(value) => {
            return Err(format!("HTTP {status}, but its transfer encoding is not understood"));
        }
        // A length beside it is a sign of somebody in between who reads it otherwise.
        (Some(_), length) => (Framing::Chunked, length.is_none()),
        (None, Some(length)) => (Framing::Length(length), true),
        (None, None) => (Framing::UntilClose, false),
    };
    Ok(Head { status, retry_after, framing, keep_alive: is_1_1 && !close && is_plain })
}

fn is_chunked(value: &[u8]) -> bool {
    value.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

fn values<'a>(
    headers: &'a [httparse::Header<'a>],
    name: &'static str,
) -> impl Iterator<Item = &'a [u8]> {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value)
}

/// The length that all the values give, which must be the same.
fn content_length<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<u64>, String> {
    let mut length = None;
    for value in values.flat_map(|value| value.split(|byte| *byte == b',')) {
        let digits = value.trim_ascii();
        let number = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        if number.is_none() || length.is_some() && length != number {
            return Err("the answer's length is not understood".to_owned());
        }
        length = number;
    }
    Ok(length)
}

/// A body as it comes, of at most so many bytes, whatever length it claims to have.
pub(super) struct Body {
    part: Part,
    max_bytes: usize,
    bytes: BytesMut,
}

/// Where in a body the next byte belongs.
#[derive(Clone, Copy)]
enum Part {
    /// In a body of this length.
    Rest(u64),
    UntilClose,
    /// In the line before a chunk.
    ChunkSize,
    /// In a chunk; so many bytes of it are missing.
    Chunk(u64),
    /// In the end of a chunk's line.
    ChunkEnd,
    /// In the lines after the last chunk; so many bytes of them have come.
    Trailer(usize),
    End,
}

impl Body {
    pub(super) fn new(framing: Framing, max_bytes: usize) -> Result<Self, String> {
        let body = |part| Self { part, max_bytes, bytes: BytesMut::new() };
        match framing {
            Framing::Length(length) if length > max_bytes as u64 => Err(body(Part::End).too_long()),
            Framing::Length(length) => Ok(body(Part::Rest(length))),
            Framing::Chunked => Ok(body(Part::ChunkSize)),
            Framing::UntilClose => Ok(body(Part::UntilClose)),
        }
    }

    /// Takes what belongs to it off `raw`. Answers whether that was all; the error says what is wrong.
    pub(super) fn take(&mut self, raw: &mut BytesMut) -> Result<bool, String> {
        loop {
            match self.part {
                Part::End => return Ok(true),
                Part::Rest(0) => self.part = Part::End,
                Part::Chunk(0) => self.part = Part::ChunkEnd,
                _ if raw.is_empty() => return Ok(false),
                Part::Rest(missing) => self.part = Part::Rest(self.take_bytes(raw, missing)?),
                Part::Chunk(missing) => self.part = Part::Chunk(self.take_bytes(raw, missing)?),
                Part::UntilClose => {
                    self.take_bytes(raw, u64::MAX)?;
                }
                Part::ChunkSize => match httparse::parse_chunk_size(raw) {
                    Ok(Status::Complete((length, 0))) => {
                        raw.advance(length);
                        self.part = Part::Trailer(0);
                    }
                    Ok(Status::Complete((length, size))) => {
                        raw.advance(length);
                        self.part = Part::Chunk(size);
                    }
                    Ok(Status::Partial) if raw.len() <= MAX_LINE_BYTES => return Ok(false),
                    Ok(Status::Partial) | Err(_) => return Err(bad_chunk()),
                },
                Part::ChunkEnd if raw.len() < 2 => return Ok(false),
                Part::ChunkEnd => {
                    if !raw.starts_with(b"\r\n") {
                        return Err(bad_chunk());
                    }
                    raw.advance(2);
                    self.part = Part::ChunkSize;
                }
                Part::Trailer(before) => {
                    let line = raw.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
                    let length = before + line.unwrap_or(raw.len());
                    match line {
                        _ if length > MAX_LINE_BYTES => return Err(bad_chunk()),
                        None => return Ok(false),
                        Some(line) => {
                            let is_last = raw.starts_with(b"\r\n");
                            raw.advance(line);
                            self.part = if is_last { Part::End } else { Part::Trailer(length) };
                        }
                    }
                }
            }
        }
    }

    /// There will be no more. The error says what is missing.
    pub(super) fn close(&mut self) -> Result<(), String> {
        match self.part {
            Part::UntilClose | Part::End => Ok(()),
            _ => Err("broke off: the connection was closed".to_owned()),
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }

    /// Takes at most `missing` bytes, and answers how many are still missing then.
    fn take_bytes(&mut self, raw: &mut BytesMut, missing: u64) -> Result<u64, String> {
        let length = raw.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
        if self.bytes.len() + length > self.max_bytes {
            return Err(self.too_long());
        }
        if self.bytes.is_empty() {
            // Most come whole, and need not be copied.
            self.bytes = raw.split_to(length);
        } else {
            self.bytes.extend_from_slice(&raw.split_to(length));
        }
        Ok(missing - length as u64)
    }

    fn too_long(&self) -> String {
        format!("is longer than {} bytes", self.max_bytes)
    }
}

fn bad_chunk() -> String {
    "is not chunked as HTTP has it".to_owned()
}
