//! AWS's binary event stream: from bytes, cut anywhere, to whole messages.
//!
//! A message is a prelude of twelve bytes, headers, a payload and a checksum. Both checksums are looked at before
//! anything is believed: the prelude's before its lengths, the message's before its headers. So a byte that was damaged on
//! the way is an error and never a different answer. Messages come out as slices of the bytes that came in; only one that
//! was cut is copied.
//!
//! # Source
//! "Amazon event stream specification" of Smithy, <https://smithy.io/2.0/aws/amazon-eventstream.html>. AWS's own crate for
//! it, `aws-smithy-eventstream`, wants the whole message in one buffer and knows no limit of ours.

use std::str;

use bytes::{Buf as _, Bytes, BytesMut};
use smallvec::SmallVec;

/// Both lengths and their checksum.
const PRELUDE_BYTES: usize = 12;
/// The checksum of the whole message, at its end.
const CHECKSUM_BYTES: usize = 4;
/// The most bytes of headers that the specification allows.
const MAX_HEADER_BYTES: usize = 128 * 1024;

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct Messages {
    /// Bytes that arrived together and may hold several messages.
    current: Bytes,
    /// The beginning of a message whose end has not arrived.
    tail: BytesMut,
    /// What the prelude in `tail` says, once it is there and was checked.
    prelude: Option<Prelude>,
    max_bytes: usize,
}

/// Why the bytes are no event stream. Nothing behind it can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    /// A message is larger than we are willing to hold.
    #[error("a message is larger than the gateway accepts")]
    TooLarge,
    /// A checksum does not fit: bytes were lost or changed on the way.
    #[error("a checksum does not fit")]
    Checksum,
    /// Lengths that contradict each other.
    #[error("the lengths of a message contradict each other")]
    Lengths,
    /// A header that is none.
    #[error("a header cannot be read")]
    Header,
}

/// One whole message whose checksums are right.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    headers: SmallVec<[(Bytes, Value); 4]>,
    /// What it carries.
    pub payload: Bytes,
}

/// A header's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A truth value.
    Bool(bool),
    /// Eight bits.
    Byte(i8),
    /// Sixteen bits.
    Short(i16),
    /// Thirty-two bits.
    Integer(i32),
    /// Sixty-four bits.
    Long(i64),
    /// Bytes.
    Bytes(Bytes),
    /// Text; checked to be UTF-8.
    Text(Bytes),
    /// Milliseconds since 1970.
    Timestamp(i64),
    /// A UUID.
    Uuid([u8; 16]),
}

#[derive(Clone, Copy, Debug)]
struct Prelude {
    total: usize,
    headers: usize,
}

impl Messages {
    /// A splitter that holds at most `max_bytes` of a message.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            current: Bytes::new(),
            tail: BytesMut::new(),
            prelude: None,
            max_bytes,
        }
    }

    /// Takes the next bytes. Everything before them must have been taken out with [`Self::take`].
    pub fn push(&mut self, bytes: Bytes) {
        debug_assert!(
            self.current.is_empty(),
            "messages must be taken out before more bytes are pushed"
        );
        self.current = bytes;
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// The bytes are no event stream, or a message announces more bytes than we hold. Nothing may be taken afterwards.
    pub fn take(&mut self) -> Result<Option<Message>, Broken> {
        if self.tail.is_empty() && self.current.len() >= PRELUDE_BYTES {
            let prelude = self.checked(&self.current)?;
            if self.current.len() >= prelude.total {
                return message(self.current.split_to(prelude.total), prelude).map(Some);
            }
        }
        self.fill(PRELUDE_BYTES);
        if self.tail.len() < PRELUDE_BYTES {
            return Ok(None);
        }
        let prelude = match self.prelude {
            Some(prelude) => prelude,
            None => self.checked(&self.tail)?,
        };
        self.fill(prelude.total);
        if self.tail.len() < prelude.total {
            self.prelude = Some(prelude);
            return Ok(None);
        }
        self.prelude = None;
        message(self.tail.split().freeze(), prelude).map(Some)
    }

    /// Whether the last message is complete, so that the stream may end here.
    pub fn is_at_boundary(&self) -> bool {
        self.tail.is_empty() && self.current.is_empty()
    }

    /// Moves bytes into the tail until it has so many, or there are no more.
    fn fill(&mut self, len: usize) {
        let missing = len.saturating_sub(self.tail.len()).min(self.current.len());
        self.tail.extend_from_slice(&self.current[..missing]);
        self.current.advance(missing);
    }

    /// The lengths at the beginning of `bytes`, which are believed once their checksum fits.
    fn checked(&self, bytes: &[u8]) -> Result<Prelude, Broken> {
        if crc32fast::hash(&bytes[..PRELUDE_BYTES - CHECKSUM_BYTES]) != number(&bytes[8..]) {
            return Err(Broken::Checksum);
        }
        let length = |at: usize| usize::try_from(number(&bytes[at..])).unwrap_or(usize::MAX);
        let (total, headers) = (length(0), length(4));
        if headers > MAX_HEADER_BYTES || total < headers + PRELUDE_BYTES + CHECKSUM_BYTES {
            return Err(Broken::Lengths);
        }
        if total > self.max_bytes {
            return Err(Broken::TooLarge);
        }
        Ok(Prelude { total, headers })
    }
}

impl Message {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&Value> {
        let found = self.headers.iter().find(|(known, _)| known == name.as_bytes());
        found.map(|(_, value)| value)
    }

    /// The first header of that name, where it is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.header(name)? {
            Value::Text(text) => str::from_utf8(text).ok(),
            _ => None,
        }
    }
}

/// The first four bytes as a number.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn message(mut bytes: Bytes, prelude: Prelude) -> Result<Message, Broken> {
    let checksum = bytes.split_off(prelude.total - CHECKSUM_BYTES);
    if crc32fast::hash(&bytes) != number(&checksum) {
        return Err(Broken::Checksum);
    }
    bytes.advance(PRELUDE_BYTES);
    let mut raw = bytes.split_to(prelude.headers);
    let mut headers = SmallVec::new();
    while !raw.is_empty() {
        headers.push(header(&mut raw).ok_or(Broken::Header)?);
    }
    Ok(Message {
        headers,
        payload: bytes,
    })
}

/// Reads one header off the front; `None` where it does not fit.
fn header(raw: &mut Bytes) -> Option<(Bytes, Value)> {
    let len = usize::from(raw.try_get_u8().ok()?);
    let name = cut(raw, len)?;
    if name.is_empty() {
        return None;
    }
    let value = match raw.try_get_u8().ok()? {
        0 => Value::Bool(true),
        1 => Value::Bool(false),
        2 => Value::Byte(raw.try_get_i8().ok()?),
        3 => Value::Short(raw.try_get_i16().ok()?),
        4 => Value::Integer(raw.try_get_i32().ok()?),
        5 => Value::Long(raw.try_get_i64().ok()?),
        6 => {
            let len = usize::from(raw.try_get_u16().ok()?);
            Value::Bytes(cut(raw, len)?)
        }
        7 => {
            let len = usize::from(raw.try_get_u16().ok()?);
            let text = cut(raw, len)?;
            str::from_utf8(&text).ok()?;
            Value::Text(text)
        }
        8 => Value::Timestamp(raw.try_get_i64().ok()?),
        9 => Value::Uuid(cut(raw, 16)?.as_ref().try_into().ok()?),
        _ => return None,
    };
    Some((name, value))
}

fn cut(raw: &mut Bytes, len: usize) -> Option<Bytes> {
    (raw.len() >= len).then(|| raw.split_to(len))
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::BufMut as _;
    use proptest::prelude::*;

    use super::*;

    /// A message with these headers and this payload.
    pub(in crate::providers) fn written(headers: &[(&str, Value)], payload: &[u8]) -> Vec<u8> {
        let mut raw = Vec::new();
        for (name, value) in headers {
            raw.put_u8(u8::try_from(name.len()).unwrap());
            raw.put_slice(name.as_bytes());
            let sized = |kind: u8, bytes: &Bytes, raw: &mut Vec<u8>| {
                raw.put_u8(kind);
                raw.put_u16(u16::try_from(bytes.len()).unwrap());
                raw.put_slice(bytes);
            };
            match value {
                Value::Bool(truth) => raw.put_u8(u8::from(!truth)),
                Value::Byte(number) => {
                    raw.put_u8(2);
                    raw.put_i8(*number);
                }
                Value::Short(number) => {
                    raw.put_u8(3);
                    raw.put_i16(*number);
                }
                Value::Integer(number) => {
                    raw.put_u8(4);
                    raw.put_i32(*number);
                }
                Value::Long(number) => {
                    raw.put_u8(5);
                    raw.put_i64(*number);
                }
                Value::Bytes(bytes) => sized(6, bytes, &mut raw),
                Value::Text(bytes) => sized(7, bytes, &mut raw),
                Value::Timestamp(number) => {
                    raw.put_u8(8);
                    raw.put_i64(*number);
                }
                Value::Uuid(bytes) => {
                    raw.put_u8(9);
                    raw.put_slice(bytes);
                }
            }
        }
        framed(&raw, payload)
    }

    /// A message with raw headers, right or wrong.
    fn framed(headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let total = PRELUDE_BYTES + headers.len() + payload.len() + CHECKSUM_BYTES;
        let mut message = Vec::with_capacity(total);
        message.put_u32(u32::try_from(total).unwrap());
        message.put_u32(u32::try_from(headers.len()).unwrap());
        message.put_u32(crc32fast::hash(&message));
        message.put_slice(headers);
        message.put_slice(payload);
        message.put_u32(crc32fast::hash(&message));
        message
    }

    /// An event as Bedrock sends it.
    pub(in crate::providers) fn event(kind: &str, payload: &str) -> Vec<u8> {
        let text = |text: &str| Value::Text(Bytes::copy_from_slice(text.as_bytes()));
        let headers = [
            (":event-type", text(kind)),
            (":content-type", text("application/json")),
            (":message-type", text("event")),
        ];
        written(&headers, payload.as_bytes())
    }

    /// An exception as Bedrock sends it.
    pub(in crate::providers) fn exception(kind: &str, payload: &str) -> Vec<u8> {
        let text = |text: &str| Value::Text(Bytes::copy_from_slice(text.as_bytes()));
        let headers = [
            (":exception-type", text(kind)),
            (":content-type", text("application/json")),
            (":message-type", text("exception")),
        ];
        written(&headers, payload.as_bytes())
    }

    fn read(chunks: &[&[u8]]) -> (Vec<Message>, Result<bool, Broken>) {
        let mut messages = Messages::new(1 << 20);
        let mut seen = Vec::new();
        for chunk in chunks {
            messages.push(Bytes::copy_from_slice(chunk));
            loop {
                match messages.take() {
                    Ok(Some(message)) => seen.push(message),
                    Ok(None) => break,
                    Err(broken) => return (seen, Err(broken)),
                }
            }
        }
        (seen, Ok(messages.is_at_boundary()))
    }

    fn bytes_of(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// Recorded from the service.
    const EVENT: &str = "0000009f00000057c37babff0b3a6576656e742d74797065070011636f6e74656e74426c6f636b44656c7461
        0d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d74797065070005
        6576656e747b22636f6e74656e74426c6f636b496e646578223a302c2264656c7461223a7b2274657874223a224869227d2c
        2270223a2261626364227df2ace5ff";
    const EXCEPTION: &str = "000000b0000000614f5086b30f3a657863657074696f6e2d747970650700137468726f74746c696e67457863
        657074696f6e0d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d74
        7970650700096578 63657074696f6e7b226d657373616765223a22546f6f206d616e7920746f6b656e732c20706c65617365
        2077616974206265666f726520747279696e6720616761696e2e227df70ae57f";

    #[test]
    fn what_the_service_sends_is_read() {
        let stream = [bytes_of(EVENT), bytes_of(EXCEPTION)].concat();
        let (seen, end) = read(&[&stream]);
        assert_eq!((seen.len(), end), (2, Ok(true)));
        assert_eq!(seen[0].text(":event-type"), Some("contentBlockDelta"));
        assert_eq!(seen[0].text(":message-type"), Some("event"));
        assert_eq!(
            &seen[0].payload[..],
            br#"{"contentBlockIndex":0,"delta":{"text":"Hi"},"p":"abcd"}"#
        );
        assert_eq!(seen[1].text(":exception-type"), Some("throttlingException"));
        assert!(seen[1].payload.starts_with(br#"{"message":"Too many tokens"#));
    }

    #[test]
    fn what_we_write_in_tests_is_what_the_service_sends() {
        let payload = r#"{"contentBlockIndex":0,"delta":{"text":"Hi"},"p":"abcd"}"#;
        assert_eq!(event("contentBlockDelta", payload), bytes_of(EVENT));
        let payload = r#"{"message":"Too many tokens, please wait before trying again."}"#;
        assert_eq!(exception("throttlingException", payload), bytes_of(EXCEPTION));
    }

    #[test]
    fn a_message_is_refused_as_soon_as_it_announces_too_much() {
        let mut prelude = Vec::new();
        prelude.put_u32(u32::MAX);
        prelude.put_u32(0);
        prelude.put_u32(crc32fast::hash(&prelude));
        assert_eq!(read(&[&prelude]).1, Err(Broken::TooLarge));
        assert_eq!(read(&[&prelude[..7], &prelude[7..]]).1, Err(Broken::TooLarge));

        let whole = written(&[], &[7; 100]);
        let mut messages = Messages::new(whole.len());
        messages.push(whole.clone().into());
        assert_eq!(messages.take().unwrap().unwrap().payload.len(), 100);
        let mut messages = Messages::new(whole.len() - 1);
        messages.push(whole.into());
        assert_eq!(messages.take(), Err(Broken::TooLarge));
    }

    #[test]
    fn lengths_and_headers_that_cannot_be_are_refused() {
        for (total, headers) in [(15_u32, 0_u32), (16, 1), (0, 0), (200_000, 131_073)] {
            let mut prelude = Vec::new();
            prelude.put_u32(total);
            prelude.put_u32(headers);
            prelude.put_u32(crc32fast::hash(&prelude));
            assert_eq!(read(&[&prelude]).1, Err(Broken::Lengths), "{total} {headers}");
        }
        let broken: [&[u8]; 7] = [
            b"\x00\x00",
            b"\x05abc",
            b"\x01a",
            b"\x01a\x0a",
            b"\x01a\x07\x00\x05abc",
            b"\x01a\x07\x00\x01\xff",
            b"\x01a\x09123",
        ];
        for headers in broken {
            assert_eq!(read(&[&framed(headers, b"x")]).1, Err(Broken::Header), "{headers:?}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i8>().prop_map(Value::Byte),
            any::<i16>().prop_map(Value::Short),
            any::<i32>().prop_map(Value::Integer),
            any::<i64>().prop_map(Value::Long),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Bytes(bytes.into())),
            "\\PC{0,12}".prop_map(|text| Value::Text(text.into())),
            (-1_000_000_000_000_000..1_000_000_000_000_000_i64).prop_map(Value::Timestamp),
            any::<[u8; 16]>().prop_map(Value::Uuid),
        ]
    }

    type Parts = (Vec<(String, Value)>, Vec<u8>);

    fn any_message() -> impl Strategy<Value = Parts> {
        let headers = prop::collection::vec(("[a-z:-]{1,10}", any_value()), 0..5);
        (headers, prop::collection::vec(any::<u8>(), 0..60))
    }

    fn stream_of(messages: &[Parts]) -> Vec<u8> {
        let one = |(headers, payload): &Parts| {
            let headers: Vec<(&str, Value)> = headers.iter().map(|(name, value)| (&**name, value.clone())).collect();
            written(&headers, payload)
        };
        messages.iter().flat_map(one).collect()
    }

    /// The message as AWS's own crate writes it.
    fn written_by_aws((headers, payload): &Parts) -> Vec<u8> {
        use aws_smithy_types::DateTime;
        use aws_smithy_types::event_stream::{Header, HeaderValue, Message};

        let value = |value: &Value| match value {
            Value::Bool(truth) => HeaderValue::Bool(*truth),
            Value::Byte(number) => HeaderValue::Byte(*number),
            Value::Short(number) => HeaderValue::Int16(*number),
            Value::Integer(number) => HeaderValue::Int32(*number),
            Value::Long(number) => HeaderValue::Int64(*number),
            Value::Bytes(bytes) => HeaderValue::ByteArray(bytes.clone()),
            Value::Text(bytes) => HeaderValue::String(str::from_utf8(bytes).unwrap().to_owned().into()),
            Value::Timestamp(millis) => HeaderValue::Timestamp(DateTime::from_millis(*millis)),
            Value::Uuid(bytes) => HeaderValue::Uuid(u128::from_be_bytes(*bytes)),
        };
        let headers = headers
            .iter()
            .map(|(name, held)| Header::new(name.clone(), value(held)));
        let message = Message::new_from_parts(headers.collect(), payload.clone());
        let mut bytes = Vec::new();
        aws_smithy_eventstream::frame::write_message_to(&message, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn a_message_has_the_bytes_that_awss_own_crate_gives_it(message in any_message()) {
            prop_assert_eq!(stream_of(std::slice::from_ref(&message)), written_by_aws(&message));
        }

        #[test]
        fn any_message_comes_out_as_it_went_in_however_it_was_cut(
            messages in prop::collection::vec(any_message(), 1..5),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let stream = stream_of(&messages);
            let (seen, end) = read(&crate::providers::testing::cut(&stream, &cuts));
            prop_assert_eq!(end, Ok(true));
            prop_assert_eq!(seen.len(), messages.len());
            for (message, (headers, payload)) in seen.iter().zip(&messages) {
                prop_assert_eq!(&message.payload[..], &payload[..]);
                for (name, _) in headers {
                    let first = headers.iter().find(|(known, _)| known == name).map(|(_, value)| value);
                    prop_assert_eq!(message.header(name), first);
                }
            }
        }

        #[test]
        fn a_damaged_byte_anywhere_is_an_error_and_costs_nothing_before_it(
            messages in prop::collection::vec(any_message(), 1..4),
            place in any::<usize>(),
            change in 1..=255u8,
            cuts in prop::collection::vec(any::<usize>(), 0..6),
        ) {
            let stream = stream_of(&messages);
            let mut damaged = stream.clone();
            let place = place % damaged.len();
            damaged[place] ^= change;
            let (seen, end) = read(&crate::providers::testing::cut(&damaged, &cuts));
            prop_assert_eq!(end, Err(Broken::Checksum));
            let (whole, _) = read(&[&stream]);
            prop_assert!(seen.len() < whole.len());
            prop_assert_eq!(&seen[..], &whole[..seen.len()]);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic_and_without_holding_more_than_allowed(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            cuts in prop::collection::vec(any::<usize>(), 0..6),
        ) {
            let mut messages = Messages::new(64);
            'all: for chunk in crate::providers::testing::cut(&bytes, &cuts) {
                messages.push(Bytes::copy_from_slice(chunk));
                loop {
                    match messages.take() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'all,
                    }
                }
                prop_assert!(messages.tail.len() <= 64);
            }
        }

        #[test]
        fn a_cut_stream_does_not_end_at_a_boundary(messages in prop::collection::vec(any_message(), 1..3), place in any::<usize>()) {
            let stream = stream_of(&messages);
            let place = 1 + place % (stream.len() - 1);
            let (seen, end) = read(&[&stream[..place]]);
            let ends_behind = stream_of(&messages[..seen.len()]).len() == place;
            prop_assert_eq!(end, Ok(ends_behind));
        }
    }
}
