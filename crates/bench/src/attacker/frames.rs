//! Frames of HTTP/2, by hand.

use prost::Message;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const END_STREAM: u8 = 1;
/// The setting that has the window of new streams.
const INITIAL_WINDOW: u16 = 4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = Vec::with_capacity(9 + payload.len());
    frame.extend(length);
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What a connection begins with. `window` is what is taken of each answer.
pub(super) fn begin(window: Option<u32>) -> Vec<u8> {
    let setting = window
        .map(|window| [&INITIAL_WINDOW.to_be_bytes()[..], &window.to_be_bytes()[..]].concat());
    [PREFACE, &frame(SETTINGS, 0, 0, &setting.unwrap_or_default())].concat()
}

/// The headers of a call of gRPC, as somebody. Nothing in it is put into the table of headers.
pub(super) fn call(path: &str, token: &str) -> Vec<u8> {
    let text = |index: &[u8], text: &str| {
        let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        debug_assert!(length < 127, "a length of one byte");
        [index, &[length], text.as_bytes()].concat()
    };
    [
        // POST, over https.
        vec![0x83, 0x87],
        text(&[0x04], path),
        text(&[0x01], "holdfast"),
        text(&[0x0f, 0x10], "application/grpc"),
        text(&[0x0f, 0x08], &format!("Bearer {token}")),
    ]
    .concat()
}

/// A message as gRPC sends it.
pub(super) fn message(message: &impl Message) -> Vec<u8> {
    let encoded = message.encode_to_vec();
    let length = u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], &encoded].concat()
}

/// A whole call, on a stream.
pub(super) fn whole_call(stream: u32, headers: &[u8], message: &[u8]) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, headers);
    bytes.extend(frame(DATA, END_STREAM, stream, message));
    bytes
}

/// The frames of a call with a header of a megabyte.
pub(super) fn large_headers(headers: &[u8]) -> Vec<u8> {
    const BYTES: u32 = 1 << 20;
    // A header of its own name, "a"; its length is one of HPACK's numbers.
    let mut block = [headers, &[0x00, 1, b'a', 0x7f]].concat();
    let mut rest = BYTES - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    block.push(rest as u8);
    block.resize(block.len() + BYTES as usize, b'x');
    let parts: Vec<_> = block.chunks(16_384).collect();
    let last = parts.len() - 1;
    let parts = parts.iter().enumerate().map(|(n, part)| {
        let kind = if n == 0 { HEADERS } else { CONTINUATION };
        frame(kind, if n == last { END_HEADERS } else { 0 }, 1, part)
    });
    parts.collect::<Vec<_>>().concat()
}
