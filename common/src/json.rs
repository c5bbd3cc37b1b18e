//! Readers of JSON that take one spelling of a value only. Derived readers also take the fields of a struct from an
//! array, by their places, and `{"SELLING": null}` for `"SELLING"`. A caller that sends one has made a mistake, and
//! gets an error.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

use crate::clock::Timestamp;

struct Object<T>(T);

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// Reads a field that is an object: `#[serde(deserialize_with = "json::object")]`.
pub fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|Object(value)| value)
}

/// Reads a field that is a list of objects: `#[serde(deserialize_with = "json::objects")]`.
pub fn objects<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|Object(value)| value).collect())
}

struct TextVisitor<F>(&'static str, F);

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for TextVisitor<F> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        let Self(expected, parse) = self;
        parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &expected))
    }
}

/// Reads text that `parse` takes. `expected` says which text that is.
pub fn text<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(TextVisitor(expected, parse))
}

/// Reads one of the words that [`FromStr`] takes.
pub fn word<'de, T: FromStr, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    text(deserializer, "one of the documented words", |word| word.parse().ok())
}

/// Reads a time: `#[serde(deserialize_with = "json::time")]`. chrono's own reader takes more than RFC 3339.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    text(deserializer, "a time of RFC 3339", parse_time)
}

/// Reads a time that may be left out: `#[serde(default, deserialize_with = "json::optional_time")]`.
pub fn optional_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    // serde applies `deserialize_with` to a whole field, and so not to what is inside an Option.
    #[derive(Deserialize)]
    struct Time(#[serde(deserialize_with = "time")] Timestamp);
    Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
}

/// A time of RFC 3339.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    Some(chrono::DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

/// Implements `Deserialize` of enums by their `FromStr`.
#[macro_export]
macro_rules! read_by_spelling {
    ($($name:ty),+ $(,)?) => {$(
        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::json::word(deserializer)
            }
        }
    )+};
}
pub use read_by_spelling;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::product::ProductStatus;

    #[test]
    fn a_word_is_read_from_its_text_alone() {
        let read = |text| serde_json::from_str::<ProductStatus>(text).ok();
        assert_eq!(read("\"SELLING\""), Some(ProductStatus::Selling));
        for other in ["{\"SELLING\": null}", "null", "0", "\"selling\"", "[\"SELLING\"]"] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_time_is_one_of_rfc_3339() {
        assert!(parse_time("2026-01-31T09:00:00Z").is_some());
        assert!(parse_time("2026-01-31T18:00:00.5+09:00").is_some());
        for other in ["2026-01-31", "2026-01-31T09:00:00", "2026-1-31T09:00:00Z", "+12026-01-31T09:00:00Z", ""] {
            assert!(parse_time(other).is_none(), "{other}");
        }
    }
}
