//! A file's lines, counted, without holding more than one.

use std::io::{self, BufRead, Read as _};

/// The longest line that is read, in bytes: far above any row that can be right.
pub(in crate::cli) const MAX_LINE_BYTES: usize = 64 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// A line and its number, counted from 1.
pub(in crate::cli) enum Line<'a> {
    /// Without its end.
    Whole(u64, &'a [u8]),
    /// Longer than [`MAX_LINE_BYTES`].
    TooLong(u64),
}

/// Reads lines.
pub(in crate::cli) struct Lines<R> {
    input: R,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(in crate::cli) fn new(input: R) -> Self {
        Self { input, number: 0, buffer: Vec::new() }
    }

    /// The next line that is not blank.
    pub(in crate::cli) fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            if !self.fill()? {
                return Ok(None);
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Ok(Some(Line::TooLong(self.number)));
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(Some(Line::Whole(self.number, &self.buffer)));
            }
        }
    }

    /// Reads one line into the buffer, without its end; of one that is too long, only as much as
    /// tells that it is. Answers whether there was one.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        let limit = MAX_LINE_BYTES as u64 + 2;
        let read = self.input.by_ref().take(limit).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        if self.buffer.ends_with(b"\n") {
            self.buffer.pop();
        } else if self.buffer.len() > MAX_LINE_BYTES {
            self.input.skip_until(b'\n')?;
        }
        if self.buffer.ends_with(b"\r") {
            self.buffer.pop();
        }
        if self.number == 1 && self.buffer.starts_with(BOM) {
            self.buffer.drain(..BOM.len());
        }
        Ok(true)
    }
}
