use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, Visitor},
};

use super::text::decode_path;

/// The most values of one parameter.
pub const MAX_VALUES: usize = 100;

/// A query parameter of several values, with commas between them. The document has it as an array of the style `form`
/// that is not exploded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Several<T>(pub Vec<T>);

struct SeveralVisitor<T>(PhantomData<T>);

impl<T: DeserializeOwned> Visitor<'_> for SeveralVisitor<T> {
    type Value = Several<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "at most {MAX_VALUES} values with commas between them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Several<T>, E> {
        if text.split(',').count() > MAX_VALUES {
            return Err(E::custom("too many values"));
        }
        text.split(',').map(|value| decode_path(&[value])).collect::<Result<_, _>>().map(Several).map_err(E::custom)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Several<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SeveralVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use dibs_common::{domain::order::OrderStatus, identifiers::ProductId};

    use super::*;

    #[test]
    fn values_have_commas_between_them() {
        let ids = |text: &str| decode_path::<Several<ProductId>>(&[text]).ok();
        let numbers =
            |text: &str| ids(text).map(|Several(ids)| ids.into_iter().map(ProductId::get).collect::<Vec<_>>());
        assert_eq!(numbers("3"), Some(vec![3]));
        assert_eq!(numbers("3,1"), Some(vec![3, 1]));
        for other in ["", ",", "1,", "1,,2", "1, 2", "1;2", "x"] {
            assert_eq!(numbers(other), None, "{other:?}");
        }
        let many = |count: usize| vec!["7"; count].join(",");
        assert_eq!(numbers(&many(MAX_VALUES)).map(|ids| ids.len()), Some(MAX_VALUES));
        assert_eq!(numbers(&many(MAX_VALUES + 1)), None);
        let words = decode_path::<Several<OrderStatus>>(&["PAY_DONE,REJECTED"]);
        assert_eq!(words, Ok(Several(vec![OrderStatus::PayDone, OrderStatus::Rejected])));
    }
}
