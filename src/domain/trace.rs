//! Where in a trace something happens, in the words of W3C Trace Context.
//!
//! # Source
//! <https://www.w3.org/TR/trace-context/>: `traceparent` in section 3.2, `tracestate` in section 3.3.

use std::fmt;

/// A trace and the span in it that whatever happens next belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceContext {
    /// The trace; never zero.
    pub trace: TraceId,
    /// The span; never zero.
    pub span: SpanId,
    /// Whether it is recorded.
    pub sampled: bool,
}

/// The name of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceId(pub [u8; 16]);

/// The name of a span in its trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpanId(pub [u8; 8]);

/// Bytes of a `traceparent`.
const LENGTH: usize = 55;
/// The longest `tracestate` that is passed on; section 3.3.1.5 wants at least 512 characters.
const MAX_STATE_BYTES: usize = 512;
/// Entries of a `tracestate`, section 3.3.1.1.
const MAX_STATE_MEMBERS: usize = 32;

impl TraceContext {
    /// Reads a `traceparent`. `None` for whatever is not one; then a new trace begins, as the standard has it.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let version = byte_at(bytes, 0)?;
        // Version 0 is exactly so long; a later one may have more behind another dash. 255 is forbidden.
        let fits = match version {
            0 => bytes.len() == LENGTH,
            255 => false,
            _ => bytes.len() == LENGTH || bytes.get(LENGTH) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
        if !fits || !dashes {
            return None;
        }
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        for (index, byte) in trace.iter_mut().enumerate() {
            *byte = byte_at(bytes, 3 + 2 * index)?;
        }
        for (index, byte) in span.iter_mut().enumerate() {
            *byte = byte_at(bytes, 36 + 2 * index)?;
        }
        let flags = byte_at(bytes, 53)?;
        (trace != [0; 16] && span != [0; 8]).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            sampled: flags & 1 != 0,
        })
    }

    /// The `traceparent` that says so.
    pub fn header(&self) -> [u8; LENGTH] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut out[3..35], &self.trace.0);
        write_hex(&mut out[36..52], &self.span.0);
        out[54] = b'0' + u8::from(self.sampled);
        out
    }

    /// The same as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.header()).into_owned()
    }
}

/// Whether a `tracestate` can be passed on as it is: its form, and not more of it than the standard asks us to carry.
pub fn is_tracestate(text: &str) -> bool {
    let member = |member: &str| {
        let member = member.trim_matches([' ', '\t']);
        member.is_empty()
            || member.split_once('=').is_some_and(|(key, value)| {
                let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-*/@".contains(c);
                !key.is_empty() && key.chars().all(named) && value.bytes().all(|b| (0x20..0x7f).contains(&b))
            })
    };
    text.len() <= MAX_STATE_BYTES && text.split(',').count() <= MAX_STATE_MEMBERS && text.split(',').all(member)
}

/// Two lower-case hexadecimal digits.
fn byte_at(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    Some(digit(bytes.get(at)?)? << 4 | digit(bytes.get(at + 1)?)?)
}

fn write_hex(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

impl TraceId {
    /// The trace of that name: 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        for (index, byte) in id.iter_mut().enumerate() {
            *byte = byte_at(text.as_bytes(), 2 * index)?;
        }
        (text.len() == 32 && id != [0; 16]).then_some(Self(id))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        write_hex(&mut text, &self.0);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 16];
        write_hex(&mut text, &self.0);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_example_of_the_standard_is_understood() {
        let context = TraceContext::parse(EXAMPLE).unwrap();
        assert_eq!(context.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span.to_string(), "b7ad6b7169203331");
        assert!(context.sampled);
        assert_eq!(context.text(), EXAMPLE);
        assert_eq!(TraceId::parse("0af7651916cd43dd8448eb211c80319c"), Some(context.trace));
    }

    #[test]
    fn what_is_not_a_traceparent_begins_a_new_trace() {
        for wrong in [
            "",
            "00",
            // Zero is no name.
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            // Capitals, and a version that is forbidden.
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
        ] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert!(TraceContext::parse(later).is_some(), "later versions may say more");
    }

    #[test]
    fn a_tracestate_is_passed_on_only_in_its_form() {
        assert!(is_tracestate(
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE, tenant@vendor=x"
        ));
        assert!(!is_tracestate("rojo"));
        assert!(!is_tracestate("ROJO=1"));
        assert!(!is_tracestate(&format!("a={}", "x".repeat(600))));
        assert!(!is_tracestate(&vec!["a=1"; 33].join(",")));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(trace in any::<[u8; 16]>(), span in any::<[u8; 8]>(), sampled: bool) {
            prop_assume!(trace != [0; 16] && span != [0; 8]);
            let context = TraceContext { trace: TraceId(trace), span: SpanId(span), sampled };
            prop_assert_eq!(TraceContext::parse(&context.text()), Some(context));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,80}") {
            let _ = (TraceContext::parse(&text), TraceId::parse(&text), is_tracestate(&text));
        }
    }
}
