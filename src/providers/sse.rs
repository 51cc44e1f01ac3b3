//! Server-sent events: from bytes, cut anywhere, to whole records.
//!
//! Records come out as slices of the bytes that came in; only a record that was cut is copied. Lines end in `\n` or
//! `\r\n`, and a record ends at an empty line (WHATWG HTML, "Server-sent events"). The standard's third line end, a lone
//! `\r`, is used by nobody and would make a record's end ambiguous at a cut.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};

/// Cuts a stream of bytes into records.
#[derive(Debug)]
pub struct Records {
    /// A record that was cut and is now complete; it comes before everything in `current`.
    mended: Option<Bytes>,
    /// Bytes that arrived together and may hold several records.
    current: Bytes,
    /// The beginning of a record whose end has not arrived.
    tail: BytesMut,
    max_bytes: usize,
}

/// A record is larger than we are willing to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLarge;

/// Bytes at the end of a text that may be the beginning of a record's end, or of the longest one less a byte.
const OVERLAP: usize = 2;

impl Records {
    /// A splitter that holds at most `max_bytes` of an unfinished record.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            mended: None,
            current: Bytes::new(),
            tail: BytesMut::new(),
            max_bytes,
        }
    }

    /// Takes the next bytes. Everything before them must have been taken out with [`Self::take`].
    pub fn push(&mut self, mut bytes: Bytes) {
        debug_assert!(
            self.current.is_empty(),
            "records must be taken out before more bytes are pushed"
        );
        if self.tail.is_empty() {
            self.current = bytes;
            return;
        }
        // The end may lie across the cut, so a few bytes are looked at together with the tail's last ones. The tail is
        // never searched again from its start: a large record that trickles in would cost its square.
        let old_len = self.tail.len();
        self.tail.extend_from_slice(&bytes[..bytes.len().min(OVERLAP)]);
        let across = end_of_record(&self.tail[old_len.saturating_sub(OVERLAP)..]);
        let used = match across {
            Some(end) => Some(end - old_len.min(OVERLAP)),
            None => end_of_record(&bytes),
        };
        self.tail.truncate(old_len);
        match used {
            Some(used) => {
                self.tail.extend_from_slice(&bytes[..used]);
                bytes.advance(used);
                self.mended = Some(self.tail.split().freeze());
                self.current = bytes;
            }
            None => self.tail.extend_from_slice(&bytes),
        }
    }

    /// The next whole record with its closing empty line, if one is there.
    ///
    /// # Errors
    /// [`TooLarge`] once a record has too many bytes, whether its end has arrived or not: how the network cut it must not
    /// decide what becomes of it.
    pub fn take(&mut self) -> Result<Option<Bytes>, TooLarge> {
        let whole = match self.mended.take() {
            Some(record) => Some(record),
            None => end_of_record(&self.current).map(|end| self.current.split_to(end)),
        };
        if let Some(record) = whole {
            return if record.len() > self.max_bytes {
                Err(TooLarge)
            } else {
                Ok(Some(record))
            };
        }
        self.tail.extend_from_slice(&self.current);
        self.current.clear();
        if self.tail.len() > self.max_bytes {
            Err(TooLarge)
        } else {
            Ok(None)
        }
    }

    /// What came after the last record's end: nothing but white space where the stream ended properly.
    pub fn rest(&self) -> &[u8] {
        self.tail.trim_ascii()
    }
}

/// The position after the first empty line, or `None`.
fn end_of_record(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match bytes.get(at + 1..) {
        Some([b'\n', ..]) => Some(at + 2),
        Some([b'\r', b'\n', ..]) => Some(at + 3),
        _ => None,
    })
}

/// The data of a record: its `data:` lines joined, or `None` where it has none (a comment, an event without data).
pub fn data(record: &[u8]) -> Option<Cow<'_, [u8]>> {
    // The form every provider sends: one line, nothing else.
    if let Some(rest) = record.strip_prefix(b"data:")
        && let Some(end) = memchr::memchr(b'\n', rest)
        && rest[end + 1..].trim_ascii().is_empty()
    {
        return Some(Cow::Borrowed(field_value(&rest[..end])));
    }
    let mut joined: Option<Vec<u8>> = None;
    for line in record.split(|&byte| byte == b'\n') {
        let Some(value) = line.strip_prefix(b"data:") else {
            continue;
        };
        match &mut joined {
            None => joined = Some(field_value(value).to_vec()),
            Some(all) => {
                all.push(b'\n');
                all.extend_from_slice(field_value(value));
            }
        }
    }
    joined.map(Cow::Owned)
}

/// A field's value: without the one space after the colon and without the line's end.
fn field_value(value: &[u8]) -> &[u8] {
    let value = value.strip_prefix(b" ").unwrap_or(value);
    value.strip_suffix(b"\r").unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut splitter = Records::new(1 << 20);
        let mut seen = Vec::new();
        for chunk in chunks {
            splitter.push(Bytes::copy_from_slice(chunk));
            while let Some(record) = splitter.take().unwrap() {
                seen.push(record.to_vec());
            }
        }
        (seen, splitter.rest().to_vec())
    }

    #[test]
    fn records_end_at_an_empty_line_of_either_kind() {
        let (seen, rest) = records(&[b"data: a\n\ndata: b\r\n\r\n: c\n\ndata: d"]);
        assert_eq!(seen, [&b"data: a\n\n"[..], b"data: b\r\n\r\n", b": c\n\n"]);
        assert_eq!(rest, b"data: d");
    }

    #[test]
    fn an_unfinished_record_is_held_only_up_to_the_limit() {
        let mut splitter = Records::new(10);
        for _ in 0..2 {
            splitter.push(Bytes::from_static(b"12345"));
            assert_eq!(splitter.take(), Ok(None));
        }
        splitter.push(Bytes::from_static(b"6"));
        assert_eq!(splitter.take(), Err(TooLarge));
    }

    #[test]
    fn a_record_over_the_limit_is_refused_even_if_it_comes_in_one_piece() {
        let mut splitter = Records::new(10);
        splitter.push(Bytes::from_static(b"12345678\n\n123456789\n\n"));
        assert_eq!(splitter.take(), Ok(Some(Bytes::from_static(b"12345678\n\n"))));
        assert_eq!(splitter.take(), Err(TooLarge));
    }

    #[test]
    fn data_lines_are_joined_and_comments_have_none() {
        let text = |record: &'static [u8]| data(record).map(|d| String::from_utf8(d.into_owned()).unwrap());
        assert_eq!(text(b"data: {}\n\n").as_deref(), Some("{}"));
        assert_eq!(text(b"data:{}\r\n\r\n").as_deref(), Some("{}"));
        assert_eq!(text(b"event: x\ndata: a\ndata: b\n\n").as_deref(), Some("a\nb"));
        assert_eq!(text(b": keep-alive\n\n"), None);
        assert_eq!(text(b"event: ping\n\n"), None);
    }

    proptest! {
        #[test]
        fn any_cut_of_the_bytes_gives_the_same_records(
            text in "(data: [a-z]{0,5}(\n|\r\n)|:|\n|\r\n|x){0,20}",
            cuts in prop::collection::vec(0..200usize, 0..12),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).filter(|c| !c.is_empty()).collect();
            prop_assert_eq!(records(&chunks), records(&[bytes]));
        }
    }
}
