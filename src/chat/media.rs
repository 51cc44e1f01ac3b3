//! Kinds of media, and how their bytes begin.
//!
//! What a sender calls its bytes is a claim: a wrong one makes a provider refuse the request, or read a document as
//! something it is not. The first bytes are a fact, so they decide. Only plain text has none and needs the claim.
//!
//! # Source
//! "MIME Sniffing", <https://mimesniff.spec.whatwg.org/#matching-a-mime-type-pattern>, and RFC 8118 for PDF. Nothing but
//! the formats that models read is told apart.

use std::fmt;

/// Media that models read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MediaType {
    /// `image/png`
    Png,
    /// `image/jpeg`
    Jpeg,
    /// `image/gif`
    Gif,
    /// `image/webp`
    Webp,
    /// `application/pdf`
    Pdf,
    /// `text/plain` in UTF-8
    Text,
}

impl MediaType {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Png, Self::Jpeg, Self::Gif, Self::Webp, Self::Pdf, Self::Text];
    /// Those that are pictures.
    pub const IMAGES: [Self; 4] = [Self::Png, Self::Jpeg, Self::Gif, Self::Webp];
    /// Those that are documents.
    pub const DOCUMENTS: [Self; 2] = [Self::Pdf, Self::Text];

    /// Its registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Gif => "image/gif",
            Self::Webp => "image/webp",
            Self::Pdf => "application/pdf",
            Self::Text => "text/plain",
        }
    }

    /// The kind that `name` names, in any case and without parameters. `image/jpg` is taken too, because everybody
    /// writes it.
    pub fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("image/jpg") {
            return Some(Self::Jpeg);
        }
        Self::ALL
            .into_iter()
            .find(|kind| name.eq_ignore_ascii_case(kind.as_str()))
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many of the first bytes [`sniff`] looks at. With fewer, its answer may change when more arrive.
pub const SNIFFED_BYTES: usize = 12;

/// The kind of media that begins with `bytes`; `None` for plain text, which begins with anything, and for all else.
pub fn sniff(bytes: &[u8]) -> Option<MediaType> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some(MediaType::Png);
    }
    if bytes.starts_with(b"\xff\xd8\xff") {
        return Some(MediaType::Jpeg);
    }
    if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        return Some(MediaType::Gif);
    }
    // A RIFF file with any length; the form it has stands behind it.
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Some(MediaType::Webp);
    }
    if bytes.starts_with(b"%PDF-") {
        return Some(MediaType::Pdf);
    }
    None
}

/// Whether `bytes` are text as people write it: UTF-8 without NUL, and not the beginning of something else.
pub fn is_text(bytes: &[u8]) -> bool {
    sniff(bytes).is_none() && !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

/// Whether a content type, with or without parameters, claims text of any kind.
pub fn claims_text(content_type: &str) -> bool {
    let name = content_type.trim_start();
    name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEGINNINGS: [(&[u8], MediaType); 6] = [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", MediaType::Png),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", MediaType::Jpeg),
        (b"GIF87a\x01\0", MediaType::Gif),
        (b"GIF89a\x01\0", MediaType::Gif),
        (b"RIFF\x24\0\0\0WEBPVP8 ", MediaType::Webp),
        (b"%PDF-1.7\n", MediaType::Pdf),
    ];

    #[test]
    fn each_kind_is_known_by_its_first_bytes_and_by_no_fewer() {
        for (bytes, kind) in BEGINNINGS {
            assert_eq!(sniff(bytes), Some(kind));
            assert!(!is_text(bytes), "{kind} is not text");
            assert_eq!(sniff(&bytes[1..]), None, "{kind} without its first byte");
            assert_eq!(sniff(&bytes[..2]), None, "two bytes of {kind}");
        }
        for other in [
            &b"RIFF\x24\0\0\0WAVEfmt "[..],
            b"<svg/>",
            b"<html>",
            b"\x1f\x8b\x08",
            b"PK\x03\x04",
            b"",
        ] {
            assert_eq!(sniff(other), None);
        }
    }

    #[test]
    fn text_is_utf_8_without_nul() {
        assert!(is_text("grüße\r\n\t".as_bytes()));
        assert!(is_text(b""));
        assert!(!is_text(b"a\0b"));
        assert!(!is_text(b"gr\xfc\xdfe"));
    }

    #[test]
    fn names_are_read_in_any_case() {
        for kind in MediaType::ALL {
            assert_eq!(MediaType::named(&kind.as_str().to_uppercase()), Some(kind));
        }
        assert_eq!(MediaType::named("image/jpg"), Some(MediaType::Jpeg));
        assert_eq!(MediaType::named("image/svg+xml"), None);
        assert!(claims_text(" Text/Markdown; charset=utf-8"));
        assert!(!claims_text("application/text/"));
        assert!(!claims_text("téxt"));
    }

    proptest! {
        #[test]
        fn no_more_than_the_first_bytes_decide(
            start in prop::sample::select(BEGINNINGS.map(|(bytes, _)| bytes).to_vec()),
            cut in 0..20usize,
            tail in prop::collection::vec(any::<u8>(), SNIFFED_BYTES..40),
        ) {
            let mut bytes = start[..cut.min(start.len())].to_vec();
            bytes.extend(tail);
            prop_assert_eq!(sniff(&bytes[..SNIFFED_BYTES]), sniff(&bytes));
        }
    }
}
