//! A file's lines, counted, without holding more than one. UTF-16 with a byte order mark is decoded as it is
//! read; what cannot be decoded is U+FFFD then.

use std::io::{self, BufRead as _, BufReader, Read};

use encoding_rs_io::{DecodeReaderBytes, DecodeReaderBytesBuilder};

/// The longest line that is read, in bytes: far above any row that can be right.
pub(in crate::cli) const MAX_LINE_BYTES: usize = 64 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// How files begin that are not text in UTF-8, and what to do about them.
const OTHER_KINDS: [(&[u8], &str); 4] = [
    (
        b"\0\0\0\0",
        "it is not text: it begins with NUL bytes, as a file does that was not written whole",
    ),
    (b"PK\x03\x04", "it is a spreadsheet or a zip file: export the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "it is a spreadsheet, not text: export the sheet as CSV"),
    (b"\x1f\x8b", "it is compressed: unpack it first"),
];

/// A line and its number, counted from 1.
pub(in crate::cli) enum Line<'a> {
    /// Without its end.
    Whole(u64, &'a [u8]),
    /// Longer than [`MAX_LINE_BYTES`].
    TooLong(u64),
}

/// Reads lines. Each ends with LF, CRLF or CR alone, also in one file.
pub(in crate::cli) struct Lines<R> {
    input: BufReader<DecodeReaderBytes<R, Vec<u8>>>,
    number: u64,
    blank: u64,
    buffer: Vec<u8>,
    /// The last line ended with CR: an LF that follows is part of its end.
    after_cr: bool,
}

impl<R: Read> Lines<R> {
    pub(in crate::cli) fn new(input: R) -> Self {
        // Text in UTF-8 comes as it is, so that what is not UTF-8 in it is told by its place.
        let input = DecodeReaderBytesBuilder::new().utf8_passthru(true).build(input);
        let input = BufReader::new(input);
        Self { input, number: 0, blank: 0, buffer: Vec::new(), after_cr: false }
    }

    /// How many lines were blank so far.
    pub(super) fn blank(&self) -> u64 {
        self.blank
    }

    /// The next line that is not blank. An error when the file is not text.
    pub(in crate::cli) fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            if !self.fill()? {
                return Ok(None);
            }
            if self.number == 1
                && let Some((_, what)) =
                    OTHER_KINDS.iter().find(|(begin, _)| self.buffer.starts_with(begin))
            {
                return Err(io::Error::new(io::ErrorKind::InvalidData, *what));
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Ok(Some(Line::TooLong(self.number)));
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(Some(Line::Whole(self.number, &self.buffer)));
            }
            self.blank += 1;
        }
    }

    /// Reads one line into the buffer, without its end and without a byte order mark before it; of one
    /// that is too long, only as much as tells that it is. Answers whether there was one.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        let mut is_begun = false;
        loop {
            let chunk = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if std::mem::take(&mut self.after_cr) && chunk.first() == Some(&b'\n') {
                self.input.consume(1);
                continue;
            }
            if chunk.is_empty() {
                break;
            }
            is_begun = true;
            let end = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let text = &chunk[..end.unwrap_or(chunk.len())];
            let room = (MAX_LINE_BYTES + BOM.len() + 1).saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&text[..text.len().min(room)]);
            let Some(end) = end else {
                let read = chunk.len();
                self.input.consume(read);
                continue;
            };
            self.after_cr = chunk[end] == b'\r';
            self.input.consume(end + 1);
            break;
        }
        if is_begun {
            self.number += 1;
            // Also of a later line: where two files were joined, the second may begin with one.
            if self.buffer.starts_with(BOM) {
                self.buffer.drain(..BOM.len());
            }
        }
        Ok(is_begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads so many bytes at once at the most.
    struct Bits<'a>(&'a [u8], usize);

    impl Read for Bits<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }

    /// The lines, read in bits of so many bytes.
    fn lines(text: &[u8], bits: usize) -> Vec<(u64, String)> {
        let mut lines = Lines::new(Bits(text, bits));
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            all.push(match line {
                Line::Whole(number, text) => (number, String::from_utf8(text.to_vec()).unwrap()),
                Line::TooLong(number) => (number, "too long".to_owned()),
            });
        }
        all
    }

    fn numbered(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
        expected.iter().map(|(number, text)| (*number, (*text).to_owned())).collect()
    }

    #[test]
    fn a_line_ends_with_lf_crlf_or_cr_wherever_the_buffer_ends() {
        for buffer in [1, 2, 3, 1024] {
            for text in
                ["a\nb\n\nc\n", "a\r\nb\r\n\r\nc", "a\rb\r\rc\r", "a\rb\n\r\nc\r\n", "a\r\nb\n\rc"]
            {
                let expected = numbered(&[(1, "a"), (2, "b"), (4, "c")]);
                assert_eq!(lines(text.as_bytes(), buffer), expected, "{text:?} {buffer}");
            }
        }
        assert_eq!(lines(b"", 4), []);
        assert_eq!(lines(b"\r\n", 4), []);
    }

    #[test]
    fn a_byte_order_mark_before_a_line_is_no_part_of_it() {
        let text = "\u{feff}a\n\u{feff}b\nc\u{feff}\n";
        assert_eq!(lines(text.as_bytes(), 5), numbered(&[(1, "a"), (2, "b"), (3, "c\u{feff}")]));
    }

    #[test]
    fn a_line_without_an_end_takes_bounded_memory_and_the_next_is_read() {
        for (length, is_whole) in [(MAX_LINE_BYTES, true), (MAX_LINE_BYTES + 1, false)] {
            let text = format!("{}\rb", "x".repeat(length));
            let read = lines(text.as_bytes(), 1000);
            assert_eq!((read[0].1 != "too long", &*read[1].1), (is_whole, "b"));
        }
        let endless = vec![b'x'; 8 * MAX_LINE_BYTES];
        let mut lines = Lines::new(&endless[..]);
        assert!(matches!(lines.next_line().unwrap(), Some(Line::TooLong(1))));
        assert!(lines.buffer.capacity() <= 2 * MAX_LINE_BYTES);
    }

    #[test]
    fn utf_16_with_a_byte_order_mark_is_read_wherever_the_buffer_ends() {
        let text = "\u{feff}a,ü\r\n🎁\rc\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bits in [1, 2, 3, 5, 8192] {
            for bytes in [&little, &big] {
                let expected = numbered(&[(1, "a,ü"), (2, "🎁"), (3, "c")]);
                assert_eq!(lines(bytes, bits), expected, "{bits}");
            }
        }
        let half = [&little[..], &[0xd8]].concat();
        assert_eq!(lines(&half, 8192)[3], (4, "\u{fffd}".to_owned()));
        let long = "x".repeat(MAX_LINE_BYTES + 1) + "\nb";
        let long: Vec<u8> =
            format!("\u{feff}{long}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(lines(&long, 8192), numbered(&[(1, "too long"), (2, "b")]));
    }

    #[test]
    fn a_file_that_is_not_text_is_an_error_that_says_what_it_is() {
        for (bytes, what) in [
            (&b"PK\x03\x04\x14\0\x06\0"[..], "spreadsheet"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1", "spreadsheet"),
            (b"\x1f\x8b\x08\0", "compressed"),
        ] {
            let error = Lines::new(bytes).next_line().err().unwrap().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
