//! `data:` URLs with base64: media inside of a request.
//!
//! Reading one borrows everything and decodes nothing: a payload of megabytes is looked over once, for its alphabet and
//! its padding, and its size follows from its length. What comes of it can be sent on as it is to a provider that takes
//! media type and base64 apart, or decoded with [`DataUrl::decode`].
//!
//! # Source
//! RFC 2397 for the URL, RFC 4648 for base64. Of what they allow, payloads that are not base64 are refused: providers
//! take none. The alphabet is the standard one; the one for URLs (`-`, `_`) is refused with a word about it, and so are
//! line breaks and percent-encoding, because providers that get the payload as it is would fail on them.

use std::fmt;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Takes payloads with and without padding; everything else was checked before.
const DECODER: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a URL without a media type holds, by RFC 2397.
const DEFAULT_MEDIA_TYPE: &str = "text/plain";

/// A `data:` URL whose payload is sound base64. `Debug` shows no content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DataUrl<'a> {
    media_type: &'a str,
    parameters: &'a str,
    payload: &'a str,
    /// The payload without its padding.
    digits: usize,
}

/// What is wrong with a `data:` URL, as words that follow the field's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataUrlError {
    /// It does not begin with `data:`.
    Scheme,
    /// There is no comma between the description and the payload.
    Comma,
    /// The media type is not a type and a subtype.
    MediaType,
    /// The description does not end in `;base64`.
    NotBase64,
    /// The payload is empty.
    Empty,
    /// A character that base64 does not have.
    Character {
        /// Its place in the payload, from 0.
        at: usize,
        /// Which kind of character it is.
        kind: WrongCharacter,
    },
    /// The payload cannot end where it does: a part is missing, or its padding is wrong.
    Length,
    /// The last digit holds bits that belong to no byte.
    LastDigit,
}

/// What an unfit character of a payload probably comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrongCharacter {
    /// `-` or `_`.
    UrlAlphabet,
    /// A space or a line break.
    Space,
    /// `%`.
    Percent,
    /// `=` before the end.
    Padding,
    /// Anything else.
    Other,
}

/// Whether `url` is meant to be a `data:` URL.
pub fn is_data_url(url: &str) -> bool {
    after_scheme(url).is_some()
}

fn after_scheme(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_at_checked(5)?;
    scheme.eq_ignore_ascii_case("data:").then_some(rest)
}

impl<'a> DataUrl<'a> {
    /// Reads a `data:` URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &'a str) -> Result<Self, DataUrlError> {
        let rest = after_scheme(url).ok_or(DataUrlError::Scheme)?;
        let (description, payload) = rest.split_once(',').ok_or(DataUrlError::Comma)?;
        let (described, encoding) = description.rsplit_once(';').ok_or(DataUrlError::NotBase64)?;
        if !encoding.trim().eq_ignore_ascii_case("base64") {
            return Err(DataUrlError::NotBase64);
        }
        let (media_type, parameters) = described.split_once(';').unwrap_or((described, ""));
        let media_type = match media_type.trim() {
            "" => DEFAULT_MEDIA_TYPE,
            written if is_media_type(written) => written,
            _ => return Err(DataUrlError::MediaType),
        };
        Ok(Self {
            media_type,
            parameters,
            payload,
            digits: check(payload)?,
        })
    }

    /// The media type, as it was written, without parameters.
    pub fn media_type(&self) -> &'a str {
        self.media_type
    }

    /// The parameters between the media type and `;base64`, as name and value: `charset=utf-8`.
    pub fn parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let parts = self
            .parameters
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        parts.map(|part| part.split_once('=').unwrap_or((part, "")))
    }

    /// The base64, with or without padding, as it was written.
    pub fn payload(&self) -> &'a str {
        self.payload
    }

    /// Whether the payload's length is a multiple of four, which some providers insist on.
    pub fn is_padded(&self) -> bool {
        self.payload.len().is_multiple_of(4)
    }

    /// How many bytes the payload decodes to.
    pub fn decoded_len(&self) -> usize {
        // Four digits are three bytes; two or three left over are one or two. No sum here can overflow.
        self.digits / 4 * 3 + (self.digits % 4).saturating_sub(1)
    }

    /// The bytes.
    pub fn decode(&self) -> Vec<u8> {
        DECODER
            .decode(self.payload)
            .expect("the payload was checked when it was read")
    }

    /// The first `count` bytes or all there are: for a look at what it is, without decoding the rest.
    pub fn decode_start(&self, count: usize) -> Vec<u8> {
        // Whole groups of four digits, so that the cut falls between bytes.
        let digits = count.div_ceil(3).saturating_mul(4).min(self.payload.len());
        let mut start = DECODER
            .decode(&self.payload[..digits])
            .expect("the payload was checked when it was read");
        start.truncate(count);
        start
    }
}

/// Looks over the payload; the number of its digits, which is its length without the padding.
fn check(payload: &str) -> Result<usize, DataUrlError> {
    let bytes = payload.as_bytes();
    if bytes.is_empty() {
        return Err(DataUrlError::Empty);
    }
    let unpadded = payload.trim_end_matches('=').as_bytes();
    if let Some(at) = unpadded.iter().position(|byte| digit(*byte).is_none()) {
        let kind = match unpadded[at] {
            b'-' | b'_' => WrongCharacter::UrlAlphabet,
            b' ' | b'\t' | b'\r' | b'\n' => WrongCharacter::Space,
            b'%' => WrongCharacter::Percent,
            b'=' => WrongCharacter::Padding,
            _ => WrongCharacter::Other,
        };
        return Err(DataUrlError::Character { at, kind });
    }
    let padding = bytes.len() - unpadded.len();
    // Bits of the last digit that no byte has.
    let spare = match (unpadded.len() % 4, padding) {
        (0, 0) => 0,
        (2, 0 | 2) => 0b1111,
        (3, 0 | 1) => 0b11,
        _ => return Err(DataUrlError::Length),
    };
    let last = unpadded.last().copied().and_then(digit).unwrap_or_default();
    if last & spare != 0 {
        return Err(DataUrlError::LastDigit);
    }
    Ok(unpadded.len())
}

/// The value of a base64 digit.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// `type/subtype`, both of the characters that RFC 6838 gives names.
fn is_media_type(text: &str) -> bool {
    let name = |part: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        !part.is_empty() && part.len() <= 127 && part.bytes().all(fits)
    };
    text.split_once('/')
        .is_some_and(|(kind, subtype)| name(kind) && name(subtype))
}

impl fmt::Debug for DataUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataUrl")
            .field("media_type", &self.media_type)
            .field("bytes", &self.decoded_len())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for DataUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("is not a data: URL"),
            Self::Comma => f.write_str("has no comma; a data: URL reads data:image/png;base64,…"),
            Self::MediaType => f.write_str("has no media type such as image/png after data:"),
            Self::NotBase64 => f.write_str("is not in base64; a data: URL reads data:image/png;base64,…"),
            Self::Empty => f.write_str("holds nothing after its comma"),
            Self::Character { at, kind } => {
                let what = match kind {
                    WrongCharacter::UrlAlphabet => "a character of the URL-safe alphabet; write + and / for - and _",
                    WrongCharacter::Space => "a space or a line break; write the base64 in one piece",
                    WrongCharacter::Percent => "a percent sign; write the base64 without percent-encoding",
                    WrongCharacter::Padding => "padding before its end",
                    WrongCharacter::Other => "a character that base64 does not have",
                };
                write!(f, "holds, at position {at} of the base64, {what}")
            }
            Self::Length => f.write_str("ends in the middle of its base64, or with the wrong padding"),
            Self::LastDigit => f.write_str("ends with a base64 digit that cannot stand there; its end may be cut off"),
        }
    }
}

impl std::error::Error for DataUrlError {}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_parts_are_borrowed_as_they_were_written() {
        let url = "DATA:image/SVG+xml;charset=utf-8; name=a.svg ;BASE64,QUJD";
        let read = DataUrl::parse(url).unwrap();
        assert_eq!(read.media_type(), "image/SVG+xml");
        let parameters: Vec<_> = read.parameters().collect();
        assert_eq!(parameters, [("charset", "utf-8"), ("name", "a.svg")]);
        assert_eq!((read.payload(), read.decoded_len()), ("QUJD", 3));
        assert_eq!(read.decode(), b"ABC");
        assert_eq!(DataUrl::parse("data:;base64,QQ").unwrap().media_type(), "text/plain");
        assert!(is_data_url("Data:x") && !is_data_url("https://x") && !is_data_url("dat"));
        assert!(!is_data_url("datä:"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        use WrongCharacter::{Other, Padding, Percent, Space, UrlAlphabet};
        let character = |at, kind| DataUrlError::Character { at, kind };
        for (url, error) in [
            ("https://example.com/", DataUrlError::Scheme),
            ("", DataUrlError::Scheme),
            ("data:image/png;base64", DataUrlError::Comma),
            ("data:image/png,QUJD", DataUrlError::NotBase64),
            ("data:,hello", DataUrlError::NotBase64),
            ("data:base64,QUJD", DataUrlError::NotBase64),
            ("data:image/png;base64;a=b,QUJD", DataUrlError::NotBase64),
            ("data:png;base64,QUJD", DataUrlError::MediaType),
            ("data:image/;base64,QUJD", DataUrlError::MediaType),
            ("data:ima ge/png;base64,QUJD", DataUrlError::MediaType),
            ("data:image/png;base64,", DataUrlError::Empty),
            ("data:image/png;base64,QU-D", character(2, UrlAlphabet)),
            ("data:image/png;base64,QUJD\nQUJD", character(4, Space)),
            ("data:image/png;base64,QQ%3D%3D", character(2, Percent)),
            ("data:image/png;base64,QQ==QUJD", character(2, Padding)),
            ("data:image/png;base64,QUJDä", character(4, Other)),
            ("data:image/png;base64,QUJD,", character(4, Other)),
            ("data:image/png;base64,Q", DataUrlError::Length),
            ("data:image/png;base64,QUJDQ", DataUrlError::Length),
            ("data:image/png;base64,QQ=", DataUrlError::Length),
            ("data:image/png;base64,QUI==", DataUrlError::Length),
            ("data:image/png;base64,QUJD=", DataUrlError::Length),
            ("data:image/png;base64,====", DataUrlError::Length),
            ("data:image/png;base64,QR==", DataUrlError::LastDigit),
            ("data:image/png;base64,QUJ", DataUrlError::LastDigit),
        ] {
            assert_eq!(DataUrl::parse(url), Err(error), "{url}");
        }
        assert_eq!(
            character(2, UrlAlphabet).to_string(),
            "holds, at position 2 of the base64, a character of the URL-safe alphabet; write + and / for - and _"
        );
    }

    #[test]
    fn debug_shows_no_content() {
        let url = format!("data:image/png;name=CANARY;base64,{}", STANDARD.encode("CANARY"));
        let shown = format!("{:?}", DataUrl::parse(&url).unwrap());
        assert_eq!(shown, "DataUrl { media_type: \"image/png\", bytes: 6, .. }");
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_with_its_size_and_its_start(
            bytes in prop::collection::vec(any::<u8>(), 1..200),
            start in 0..220usize,
        ) {
            for encoded in [STANDARD.encode(&bytes), STANDARD_NO_PAD.encode(&bytes)] {
                let url = format!("data:application/pdf;base64,{encoded}");
                let read = DataUrl::parse(&url).unwrap();
                prop_assert_eq!(read.decoded_len(), bytes.len());
                prop_assert_eq!(read.is_padded(), encoded.len() % 4 == 0);
                prop_assert_eq!(read.decode(), &bytes[..]);
                prop_assert_eq!(read.decode_start(start), &bytes[..start.min(bytes.len())]);
            }
        }

        #[test]
        fn a_payload_is_taken_exactly_if_it_can_be_decoded_and_is_padded_whole_or_not_at_all(payload in "[A-Da-c+/=_ -]{0,12}") {
            let url = format!("data:image/png;base64,{payload}");
            let whole = !payload.ends_with('=') || payload.len().is_multiple_of(4);
            let decoded = DECODER.decode(&payload).ok().filter(|bytes| whole && !bytes.is_empty());
            prop_assert_eq!(DataUrl::parse(&url).ok().map(|read| read.decode()), decoded);
        }

        #[test]
        fn no_text_makes_it_panic(text in "(data:)?.{0,40}") {
            if let Ok(read) = DataUrl::parse(&text) {
                prop_assert_eq!(read.decode().len(), read.decoded_len());
            }
        }
    }
}
