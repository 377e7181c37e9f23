//! A tracker of HTTP/2 frames: where in them a client is, from the bytes that it has sent.
//!
//! Only what is needed to say whether it has begun something and not ended it: the preface, a frame, or a block of
//! headers, which may go on over several frames. What is wrong with any of these is the library's to say.

/// The bytes that a client begins with.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What a client has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// The connection: its preface is not there.
    Preface,
    /// A frame, or a block of headers.
    Frame,
    /// A frame of data.
    Data,
}

/// The position of a client.
#[derive(Debug)]
pub(super) struct Frames {
    preface_left: usize,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    payload_left: usize,
    /// A block of headers goes on in the next frame.
    in_block: bool,
    /// How many things were ended: another one has begun when this has changed.
    ended: u64,
    /// A call was begun.
    has_called: bool,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            preface_left: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            payload_left: 0,
            in_block: false,
            ended: 0,
            has_called: false,
        }
    }

    /// Goes on by what came. Answers how many streams the client has reset in it.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> u32 {
        let mut resets = 0;
        while !bytes.is_empty() {
            if self.preface_left > 0 {
                let part = self.preface_left.min(bytes.len());
                self.preface_left -= part;
                bytes = &bytes[part..];
                self.ended += u64::from(self.preface_left == 0);
                continue;
            }
            if self.header_bytes < HEADER_BYTES {
                let part = (HEADER_BYTES - self.header_bytes).min(bytes.len());
                let to = self.header_bytes + part;
                self.header[self.header_bytes..to].copy_from_slice(&bytes[..part]);
                self.header_bytes = to;
                bytes = &bytes[part..];
                if to < HEADER_BYTES {
                    return resets;
                }
                let [a, b, c, ..] = self.header;
                self.payload_left = u32::from_be_bytes([0, a, b, c]) as usize;
                resets += u32::from(self.kind() == RST_STREAM);
            }
            let part = self.payload_left.min(bytes.len());
            self.payload_left -= part;
            bytes = &bytes[part..];
            if self.payload_left == 0 {
                self.end_frame();
            }
        }
        resets
    }

    fn kind(&self) -> u8 {
        self.header[3]
    }

    fn end_frame(&mut self) {
        self.header_bytes = 0;
        if matches!(self.kind(), HEADERS | CONTINUATION) {
            self.has_called = true;
            self.in_block = self.header[4] & END_HEADERS == 0;
        }
        self.ended += u64::from(!self.in_block);
    }

    /// Whether a call was ever begun.
    pub(super) fn has_called(&self) -> bool {
        self.has_called
    }

    /// What has begun and not ended, if anything has, and its number.
    pub(super) fn begun(&self) -> Option<(Begun, u64)> {
        let begun = if self.preface_left > 0 {
            Begun::Preface
        } else if self.in_block {
            Begun::Frame
        } else if self.header_bytes == HEADER_BYTES && self.kind() == DATA {
            Begun::Data
        } else if self.header_bytes > 0 {
            Begun::Frame
        } else {
            return None;
        };
        Some((begun, self.ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let header = [length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        [&header[..], &vec![7; payload]].concat()
    }

    fn preface() -> Vec<u8> {
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()
    }

    /// What has begun after each byte, without repetitions.
    fn steps(bytes: &[u8], each: usize) -> Vec<Option<Begun>> {
        let mut frames = Frames::new();
        let mut steps = vec![frames.begun().map(|(begun, _)| begun)];
        for part in bytes.chunks(each) {
            frames.feed(part);
            steps.push(frames.begun().map(|(begun, _)| begun));
        }
        steps.dedup();
        steps
    }

    #[test]
    fn what_has_begun_is_known_after_each_byte() {
        let bytes = [
            preface(),
            frame(4, 0, 12),
            frame(HEADERS, END_HEADERS, 30),
            frame(DATA, 1, 5),
            frame(6, 0, 8),
        ]
        .concat();
        assert_eq!(
            steps(&bytes, 1),
            [
                Some(Begun::Preface),
                None,
                Some(Begun::Frame),
                None,
                Some(Begun::Frame),
                None,
                Some(Begun::Frame),
                Some(Begun::Data),
                None,
                Some(Begun::Frame),
                None
            ]
        );
        for each in 2..bytes.len() {
            assert_eq!(steps(&bytes, each).last(), Some(&None), "{each}");
        }
    }

    #[test]
    fn a_block_of_headers_ends_with_the_frame_that_says_so() {
        let mut frames = Frames::new();
        frames.feed(&preface());
        let (begun, number) = (Some(Begun::Frame), frames.ended);
        for (kind, flags) in [(HEADERS, 0), (CONTINUATION, 0), (CONTINUATION, 0)] {
            frames.feed(&frame(kind, flags, 10));
            assert_eq!(
                frames.begun(),
                begun.map(|begun| (begun, number)),
                "one block all the time"
            );
        }
        frames.feed(&frame(CONTINUATION, END_HEADERS, 0));
        assert_eq!(frames.begun(), None);
        assert_eq!(frames.ended, number + 1);
    }

    #[test]
    fn resets_are_counted_wherever_the_bytes_are_cut() {
        let bytes =
            [preface(), frame(RST_STREAM, 0, 4), frame(DATA, 0, 3), frame(RST_STREAM, 0, 4)];
        let bytes = bytes.concat();
        for each in 1..bytes.len() {
            let mut frames = Frames::new();
            let resets: u32 = bytes.chunks(each).map(|part| frames.feed(part)).sum();
            assert_eq!(resets, 2, "{each}");
        }
    }
}
