//! Cursors of lists that have no id to go on at: text that a caller gives back as it was.

use utoipa::openapi::{
    RefOr, Schema, SchemaFormat,
    schema::{ObjectBuilder, Type},
};

/// Lets a cursor be text in JSON and in the OpenAPI document: by its `Display`, its `FromStr`, and its own `FORMAT` and
/// `pattern`. `$expected` says what it is to a caller that sends something else.
macro_rules! text_cursor {
    ($name:ty, $expected:literal) => {
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::json::text(deserializer, $expected, |text| text.parse().ok())
            }
        }

        impl ::utoipa::PartialSchema for $name {
            fn schema() -> ::utoipa::openapi::RefOr<::utoipa::openapi::Schema> {
                $crate::domain::cursor::text_schema(Self::FORMAT, Self::pattern())
            }
        }

        impl ::utoipa::ToSchema for $name {}
    };
}
pub(super) use text_cursor;

pub(super) fn text_schema(format: &str, pattern: String) -> RefOr<Schema> {
    // With its pattern, so that a cursor of another list is refused by name and not read as a position.
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
    text.format(Some(SchemaFormat::Custom(format.to_owned()))).into()
}
