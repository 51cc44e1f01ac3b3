//! What of a request the echo model needs, read without building a tree.
//!
//! The body was checked when it was walked, so nothing here can fail; a field of the wrong shape is passed over. A tree of
//! a body of 16 MB would be ten times as large, so values are looked at one after the other where they are.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::chat::request::Request;
use crate::chat::walk::{Fields, Kind, Walk};
use crate::domain::call::Operation;

/// A text that stops growing at its limit.
#[derive(Debug)]
pub(super) struct Said {
    /// As much as fits.
    pub text: String,
    /// Whether there was more.
    pub cut: bool,
    max_bytes: usize,
}

impl Said {
    /// The last thing the user said, or the prompt.
    pub fn of(request: &Request, max_bytes: usize) -> Self {
        let mut said = Self {
            text: String::new(),
            cut: false,
            max_bytes,
        };
        let source = match request.operation {
            Operation::Chat => last_of_the_user(request),
            Operation::Completion | Operation::Embedding => {
                let [prompt] = fields(&request.body, ["prompt"]);
                prompt
            }
        };
        match source.map(Kind::of) {
            Some(Kind::Text) => said.push(source),
            Some(Kind::Array) => each(source.unwrap_or_default(), |part| match Kind::of(part) {
                Kind::Text => said.push_line(Some(part)),
                Kind::Object => {
                    let [text] = fields(part.as_bytes(), ["text"]);
                    said.push_line(text);
                }
                Kind::Array | Kind::Null | Kind::Other => {}
            }),
            _ => {}
        }
        said
    }

    fn push_line(&mut self, raw: Option<&str>) {
        if raw.is_some() && !self.text.is_empty() {
            self.push_str("\n");
        }
        self.push(raw);
    }

    fn push(&mut self, raw: Option<&str>) {
        if let Some(text) = raw.and_then(text) {
            self.push_str(&text);
        }
    }

    fn push_str(&mut self, text: &str) {
        if self.cut {
            return;
        }
        let room = self.max_bytes - self.text.len();
        self.cut = text.len() > room;
        self.text.push_str(&text[..text.floor_char_boundary(room)]);
    }
}

fn last_of_the_user(request: &Request) -> Option<&str> {
    let [messages] = fields(&request.body, ["messages"]);
    let mut last = None;
    each(messages?, |message| {
        let [role, content] = fields(message.as_bytes(), ["role", "content"]);
        if role.and_then(text).as_deref() == Some("user") {
            last = content;
        }
    });
    last
}

/// The values of an object's fields as they stand in it.
pub(super) fn fields<'a, const N: usize>(object: &'a [u8], names: [&str; N]) -> [Option<&'a str>; N] {
    struct Wanted<'n, 'a, const N: usize> {
        names: [&'n str; N],
        found: [Option<&'a str>; N],
    }

    impl<'a, const N: usize> Fields<'a> for Wanted<'_, 'a, N> {
        fn field<A: MapAccess<'a>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
            let raw = walk.opaque(map)?;
            if let Some(at) = self.names.iter().position(|wanted| *wanted == name) {
                self.found[at] = Some(raw);
            }
            Ok(())
        }
    }

    let mut wanted = Wanted {
        names,
        found: [None; N],
    };
    let _ = Walk::object(object, usize::MAX, &mut wanted);
    wanted.found
}

/// Shows every element of an array, as it stands there, to `look`.
pub(super) fn each<'a>(array: &'a str, look: impl FnMut(&'a str)) {
    struct Each<F>(F);

    impl<'de, F: FnMut(&'de str)> Visitor<'de> for Each<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
            while let Some(element) = seq.next_element::<&'de RawValue>()? {
                (self.0)(element.get());
            }
            Ok(())
        }
    }

    let _ = serde_json::Deserializer::from_str(array).deserialize_seq(Each(look));
}

/// A JSON string as text, borrowed where it holds no escape; `None` for anything else.
pub(super) fn text(raw: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw).ok().map(|text| text.0)
}
