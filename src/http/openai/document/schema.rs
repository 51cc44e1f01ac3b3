//! The kinds of schema that poem-openapi's own derives cannot say.
//!
//! `derive(Object)` serves for everything that is a plain object. It has no way to say "this, or an explicit null"
//! about a reference, puts every enum into the components, and gives `derive(Union)` the type `object` even when a
//! variant is a string. Start with [`Optional`], then [`words!`], [`any_of!`] and [`tagged!`].
//!
//! The types hold the JSON they were read from and parse what their schema allows, so reading an example (or a real
//! answer, in a contract test) as one of these types checks it. One gap: poem-openapi reads numbers and booleans as
//! strings too.

use std::{borrow::Cow, collections::BTreeMap};

use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde_json::Value;

/// A field that may be absent and may be null, which mean the same.
pub type Optional<T> = Option<Nullable<T>>;

/// An object whose fields are somebody else's business, such as a JSON Schema.
pub type JsonObject = BTreeMap<String, Value>;

/// `T`, or an explicit null.
#[derive(Debug)]
pub struct Nullable<T>(Option<T>);

impl<T: Type> Type for Nullable<T> {
    const IS_REQUIRED: bool = true;

    type RawValueType = T::RawValueType;
    type RawElementValueType = T::RawElementValueType;

    fn name() -> Cow<'static, str> {
        format!("nullable_{}", T::name()).into()
    }

    /// Says null in the one way OpenAPI 3.0 has for each case: `nullable` beside a `type` and inside an `enum`, an
    /// alternative of its own everywhere else, because `nullable` beside a reference or an `anyOf` means nothing.
    fn schema_ref() -> MetaSchemaRef {
        let schema = match T::schema_ref() {
            MetaSchemaRef::Inline(schema) if !schema.ty.is_empty() => {
                let mut schema = *schema;
                if !schema.enum_items.is_empty() {
                    schema.enum_items.push(Value::Null);
                }
                MetaSchema {
                    nullable: true,
                    ..schema
                }
            }
            MetaSchemaRef::Inline(schema) if !schema.any_of.is_empty() => {
                let mut schema = *schema;
                schema.any_of.push(null());
                schema
            }
            other => MetaSchema {
                any_of: vec![other, null()],
                ..MetaSchema::ANY
            },
        };
        inline(schema)
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn as_raw_value(&self) -> Option<&Self::RawValueType> {
        self.0.as_ref().and_then(T::as_raw_value)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self::RawElementValueType> + 'a> {
        match &self.0 {
            Some(value) => value.raw_element_iter(),
            None => Box::new(std::iter::empty()),
        }
    }
}

impl<T: ParseFromJSON> ParseFromJSON for Nullable<T> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            None => Err(ParseError::expected_input()),
            Some(Value::Null) => Ok(Self(None)),
            value => T::parse_from_json(value)
                .map(|value| Self(Some(value)))
                .map_err(ParseError::propagate),
        }
    }
}

impl<T: ToJSON> ToJSON for Nullable<T> {
    fn to_json(&self) -> Option<Value> {
        self.0.as_ref().map_or(Some(Value::Null), T::to_json)
    }
}

/// What [`words!`], [`any_of!`] and [`tagged!`] say about the type they define; the rest is the same for all of them.
pub trait Shape {
    /// The schema, or the reference to it.
    fn schema_ref() -> MetaSchemaRef;

    /// Adds the schemas that [`Shape::schema_ref`] refers to.
    fn register(registry: &mut Registry);

    /// Whether the schema allows `value`.
    fn accepts(value: &Value) -> bool;
}

/// A newtype over the JSON it was read from, which leaves its schema to its [`Shape`].
macro_rules! shaped {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name(serde_json::Value);

        impl poem_openapi::types::Type for $name {
            const IS_REQUIRED: bool = true;

            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
                <Self as super::schema::Shape>::schema_ref()
            }

            fn register(registry: &mut poem_openapi::registry::Registry) {
                <Self as super::schema::Shape>::register(registry);
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }

        impl poem_openapi::types::ParseFromJSON for $name {
            fn parse_from_json(value: Option<serde_json::Value>) -> poem_openapi::types::ParseResult<Self> {
                let value = value.unwrap_or_default();
                if <Self as super::schema::Shape>::accepts(&value) {
                    Ok(Self(value))
                } else {
                    Err(poem_openapi::types::ParseError::expected_type(value))
                }
            }
        }

        impl poem_openapi::types::ToJSON for $name {
            fn to_json(&self) -> Option<serde_json::Value> {
                Some(self.0.clone())
            }
        }
    };
}

/// Strings of which only a few are allowed, shown where they are used: `Detail = "auto" | "low" | "high";`.
macro_rules! words {
    ($($(#[$meta:meta])* $name:ident = $($word:literal)|+;)+) => {$(
        super::schema::shaped! { $(#[$meta])* $name }

        impl super::schema::Shape for $name {
            fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
                super::schema::inline(poem_openapi::registry::MetaSchema {
                    enum_items: vec![$($word.into()),+],
                    ..poem_openapi::registry::MetaSchema::new("string")
                })
            }

            fn register(_: &mut poem_openapi::registry::Registry) {}

            fn accepts(value: &serde_json::Value) -> bool {
                matches!(value.as_str(), Some($($word)|+))
            }
        }
    )+};
}

/// Values of one of several types, shown where they are used: `Stop = String | Vec<String>;`.
macro_rules! any_of {
    ($($(#[$meta:meta])* $name:ident = $($alternative:ty)|+;)+) => {$(
        super::schema::shaped! { $(#[$meta])* $name }

        impl super::schema::Shape for $name {
            fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
                super::schema::inline(poem_openapi::registry::MetaSchema {
                    any_of: vec![$(<$alternative as poem_openapi::types::Type>::schema_ref()),+],
                    ..poem_openapi::registry::MetaSchema::ANY
                })
            }

            fn register(registry: &mut poem_openapi::registry::Registry) {
                $(<$alternative as poem_openapi::types::Type>::register(registry);)+
            }

            fn accepts(value: &serde_json::Value) -> bool {
                $(super::schema::parses::<$alternative>(value))||+
            }
        }
    )+};
}

/// Objects told apart by the word in one of their fields: a named schema with a discriminator.
macro_rules! tagged {
    ($(#[doc = $doc:literal])+ $name:ident by $tag:literal { $($word:literal => $variant:ty),+ $(,)? }) => {
        super::schema::shaped! { $(#[doc = $doc])+ $name }

        impl super::schema::Shape for $name {
            fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
                poem_openapi::registry::MetaSchemaRef::Reference(stringify!($name).to_owned())
            }

            fn register(registry: &mut poem_openapi::registry::Registry) {
                registry.create_schema::<Self, _>(stringify!($name).to_owned(), |registry| {
                    $(<$variant as poem_openapi::types::Type>::register(registry);)+
                    poem_openapi::registry::MetaSchema {
                        description: Some(concat!($($doc, "\n"),+).trim()),
                        one_of: vec![$(<$variant as poem_openapi::types::Type>::schema_ref()),+],
                        discriminator: Some(poem_openapi::registry::MetaDiscriminatorObject {
                            property_name: $tag,
                            mapping: vec![$(($word.to_owned(), super::schema::reference_to::<$variant>())),+],
                        }),
                        ..poem_openapi::registry::MetaSchema::ANY
                    }
                });
            }

            fn accepts(value: &serde_json::Value) -> bool {
                match value.get($tag).and_then(serde_json::Value::as_str) {
                    $(Some($word) => super::schema::parses::<$variant>(value),)+
                    _ => false,
                }
            }
        }
    };
}

pub(super) use {any_of, shaped, tagged, words};

/// A schema at the place where it is used.
pub fn inline(schema: MetaSchema) -> MetaSchemaRef {
    MetaSchemaRef::Inline(Box::new(schema))
}

/// Where the document keeps the schema of `T`.
pub fn reference_to<T: Type>() -> String {
    format!("#/components/schemas/{}", T::name())
}

/// Whether `value` is a `T`.
pub fn parses<T: ParseFromJSON>(value: &Value) -> bool {
    T::parse_from_json(Some(value.clone())).is_ok()
}

/// An example written as JSON, checked against the type it is an example of.
///
/// # Panics
/// When it does not match; a test builds the whole document, so a wrong example does not leave the build.
pub fn example<T: ParseFromJSON>(value: Value) -> T {
    T::parse_from_json(Some(value))
        .map_err(ParseError::into_message)
        .expect("an example matches its own schema")
}

fn null() -> MetaSchemaRef {
    inline(MetaSchema {
        title: Some("null".to_owned()),
        nullable: true,
        enum_items: vec![Value::Null],
        ..MetaSchema::new("object")
    })
}
