use std::slice;

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, Error as _, IntoDeserializer, Visitor,
        value::{Error, MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

/// Decodes parameters with names: those of a query.
pub(super) fn decode_query<T: DeserializeOwned>(pairs: &[(&str, &str)]) -> Result<T, Error> {
    T::deserialize(MapDeserializer::new(pairs.iter().map(|(name, value)| (*name, Text(slice::from_ref(value))))))
}

/// Decodes parameters by their places: those of a path.
pub(super) fn decode_path<T: DeserializeOwned>(values: &[&str]) -> Result<T, Error> {
    T::deserialize(Text(values))
}

/// Text of a URL: one value, or those of a tuple. An integer has one spelling: with a sign or a zero in front, one
/// resource would have several URLs.
#[derive(Clone, Copy)]
struct Text<'t>(&'t [&'t str]);

impl<'t> Text<'t> {
    fn value(self) -> &'t str {
        self.0.first().copied().unwrap_or_default()
    }

    /// As text of one spelling that `str::parse` takes.
    fn integer(self) -> Result<u64, Error> {
        let text = self.value();
        let is_canonical = text == "0" || text.starts_with(|first: char| ('1'..='9').contains(&first));
        text.parse().ok().filter(|_| is_canonical).ok_or_else(|| Error::custom("not an integer"))
    }
}

impl IntoDeserializer<'_> for Text<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Text<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.value())
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(self.integer()?)
    }

    // serde's visitors of the smaller types check the range.
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.value().parse().map_err(Error::custom)?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(SeqDeserializer::new(self.0.iter().map(|value| Text(slice::from_ref(value)))))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.value().into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple_struct map
        struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use dibs_common::identifiers::{ClaimId, CouponId, UserId};

    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!(decode_path::<u64>(&["0"]), Ok(0));
        assert_eq!(decode_path::<CouponId>(&["10"]).map(CouponId::get), Ok(10));
        for other in ["", "01", "+1", "-1", " 1", "1 ", "1.0", "1e0", "0x1", "0", "9007199254740992"] {
            assert!(decode_path::<CouponId>(&[other]).is_err(), "{other:?}");
        }
        let id = ClaimId::generate();
        assert_eq!(decode_path::<ClaimId>(&[&id.to_string()]), Ok(id));
        for other in [format!("{{{id}}}"), format!("urn:uuid:{id}"), id.0.simple().to_string(), format!(" {id}")] {
            assert!(decode_path::<ClaimId>(&[&other]).is_err(), "{other:?}");
        }
    }

    #[test]
    fn true_and_false_are_spelled_out() {
        assert_eq!(decode_path::<bool>(&["true"]), Ok(true));
        assert_eq!(decode_path::<bool>(&["false"]), Ok(false));
        for other in ["", "1", "True", "yes"] {
            assert!(decode_path::<bool>(&[other]).is_err(), "{other:?}");
        }
    }

    #[test]
    fn several_values_are_a_tuple() {
        let (coupon, user) = decode_path::<(CouponId, UserId)>(&["1", "2"]).expect("two ids");
        assert_eq!((coupon.get(), user.get()), (1, 2));
        assert!(decode_path::<(CouponId, UserId)>(&["1"]).is_err());
    }
}
