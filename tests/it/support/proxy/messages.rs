//! Messages of Postgres's protocol, version 3, as far as the proxy reads them.

/// The length of a message's head: its kind and its length, which counts itself but not the kind.
const HEAD: usize = 5;

/// A message after the start of a connection: its kind, and the bytes with its head.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) bytes: Vec<u8>,
}

/// Takes the first whole message off `bytes`.
pub(super) fn take(bytes: &mut Vec<u8>) -> Option<Message> {
    let length = 1 + length_at(bytes, 1)?;
    (bytes.len() >= length).then(|| {
        let message: Vec<_> = bytes.drain(..length).collect();
        Message { kind: message[0], bytes: message }
    })
}

/// What opens a connection: a message without a kind, or a request for something else instead.
#[derive(Debug)]
pub(super) enum Opening {
    /// Asks for TLS or GSSAPI, to be answered with one byte.
    Encryption,
    /// Anything else, to be passed on.
    Other(Vec<u8>),
}

/// Takes the first whole opening off `bytes`.
pub(super) fn take_opening(bytes: &mut Vec<u8>) -> Option<Opening> {
    const ENCRYPTIONS: [usize; 2] = [80_877_103, 80_877_104];
    let length = length_at(bytes, 0)?;
    if bytes.len() < length {
        return None;
    }
    let opening: Vec<_> = bytes.drain(..length).collect();
    Some(match length_at(&opening, 4) {
        Some(code) if ENCRYPTIONS.contains(&code) => Opening::Encryption,
        _ => Opening::Other(opening),
    })
}

fn length_at(bytes: &[u8], place: usize) -> Option<usize> {
    let length = bytes.get(place..place + 4)?;
    Some(u32::from_be_bytes(length.try_into().unwrap()) as usize)
}

impl Message {
    /// The texts that the message begins with, each ended by a zero.
    pub(super) fn texts<const N: usize>(&self) -> [String; N] {
        let mut rest = &self.bytes[HEAD..];
        std::array::from_fn(|_| {
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            let text = String::from_utf8_lossy(&rest[..end]).into_owned();
            rest = rest.get(end + 1..).unwrap_or_default();
            text
        })
    }

    /// A Parse with another statement.
    pub(super) fn with_statement(&self, sql: &str) -> Self {
        let [name, before] = self.texts::<2>();
        let types = &self.bytes[HEAD + name.len() + 1 + before.len() + 1..];
        let mut body = Vec::new();
        for text in [&*name, sql] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.extend_from_slice(types);
        Self::new(self.kind, &body)
    }

    fn new(kind: u8, body: &[u8]) -> Self {
        let length = u32::try_from(body.len() + 4).unwrap();
        let bytes = [&[kind], &length.to_be_bytes()[..], body].concat();
        Self { kind, bytes }
    }
}

/// What a server answers to a statement that it refuses with `code`.
pub(super) fn refusal(code: &str) -> Vec<u8> {
    let fields = format!("SERROR\0VERROR\0C{code}\0Ma fault of the proxy\0\0");
    let ready = Message::new(b'Z', b"I");
    [Message::new(b'E', fields.as_bytes()).bytes, ready.bytes].concat()
}
