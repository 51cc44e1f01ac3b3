//! The tools of a chat: `tools`, and `functions` as they were called before.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess};

use super::Seen;
use crate::chat::walk::{Fields, Items, Kind, Object, Walk};
use crate::domain::error::InvalidKind;

/// Reads `tools` (`wrapped`: each has a type, and its function inside) or `functions`. Says whether there are any.
pub(super) fn read<'de, A: MapAccess<'de>>(
    walk: &Walk<'_>,
    map: &mut A,
    seen: &mut Seen,
    wrapped: bool,
) -> Result<bool, A::Error> {
    let required = if wrapped { "type" } else { "name" };
    let count = walk.array(map, "an array of tools or null", &mut Tools { seen, required })?;
    Ok(count.unwrap_or(0) > 0)
}

/// The elements of either array.
struct Tools<'s> {
    seen: &'s mut Seen,
    required: &'static str,
}

impl<'de> Items<'de> for Tools<'_> {
    const EXPECTED: &'static str = "an object";

    fn item<D: Deserializer<'de>>(&mut self, walk: &Walk<'_>, _index: usize, item: D) -> Result<(), D::Error> {
        let fields = Tool {
            seen: self.seen,
            required: self.required,
            given: false,
        };
        Object { walk, fields }.deserialize(item)
    }
}

/// One tool.
struct Tool<'s> {
    seen: &'s mut Seen,
    required: &'static str,
    given: bool,
}

impl<'de> Fields<'de> for Tool<'_> {
    fn field<A: MapAccess<'de>>(&mut self, walk: &Walk<'_>, name: &str, map: &mut A) -> Result<(), A::Error> {
        let raw = match name {
            "type" | "name" => walk.opaque_of_kind(map, &[Kind::Text], "a string")?,
            "function" | "custom" | "parameters" => {
                walk.opaque_of_kind(map, &[Kind::Object, Kind::Null], "an object")?
            }
            _ => walk.opaque(map)?,
        };
        self.given |= name == self.required;
        // Tool definitions are part of the prompt as the model sees it.
        self.seen.prompt.add_json_escaped(raw.as_bytes());
        Ok(())
    }

    fn end<E: de::Error>(&mut self, walk: &Walk<'_>) -> Result<(), E> {
        if self.given {
            return Ok(());
        }
        Err(walk.refuse_field(self.required, InvalidKind::Missing, "is required"))
    }
}
