//! What makes a repeat the same request as the first: the value of its JSON body, not its bytes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a JSON value: neither the order of members counts nor white space nor how a character is escaped. Integers
/// are compared as integers and others as doubles, so that `1` and `1.0` differ: no field of Dibs takes `1.0`. None for a
/// body that is no JSON.
pub(super) fn of_json(body: &[u8]) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut json = serde_json::Deserializer::from_slice(body);
    ValueHasher(&mut hash).deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(hash.finalize().into())
}

/// Adds one value to a hash while it is read. A body may be half a megabyte, of which no tree is built.
struct ValueHasher<'h>(&'h mut Sha256);

/// Distinguishes the kinds of values, so that none can be taken for another.
impl ValueHasher<'_> {
    fn add(self, kind: u8, bytes: &[u8]) {
        self.0.update([kind]);
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }
}

impl<'de> DeserializeSeed<'de> for ValueHasher<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueHasher<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.add(b'n', &[]);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.add(b'b', &[u8::from(value)]);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.add(b'i', &i128::from(value).to_be_bytes());
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.add(b'i', &i128::from(value).to_be_bytes());
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.add(b'd', &value.to_bits().to_be_bytes());
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.add(b's', value.as_bytes());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.update(b"[");
        while items.next_element_seed(ValueHasher(self.0))?.is_some() {}
        self.0.update(b"]");
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut members: Vec<(String, [u8; 32])> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let mut hash = Sha256::new();
            map.next_value_seed(ValueHasher(&mut hash))?;
            members.push((name, hash.finalize().into()));
        }
        // Of a member that comes twice both count: a reader may take either.
        members.sort();
        self.0.update(b"{");
        for (name, value) in &members {
            ValueHasher(self.0).add(b's', name.as_bytes());
            self.0.update(value);
        }
        self.0.update(b"}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn members_and_spaces_may_differ() {
        let first = of_json(br#"{"a": 1, "b": [true, null, {"c": "\u00e9", "d": -2}]}"#);
        assert!(first.is_some());
        assert_eq!(first, of_json("\n{\"b\":[true,null,{\"d\":-2,\"c\":\"é\"}],\"a\":1} ".as_bytes()));
    }

    #[test]
    fn another_value_has_another_hash() {
        let values = [
            "null",
            "false",
            "true",
            "0",
            "1",
            "-1",
            "1.0",
            "1.5",
            "\"\"",
            "\"1\"",
            "\"a\"",
            "[]",
            "[[]]",
            "[1]",
            "[1,1]",
            "[[1],1]",
            "[1,[1]]",
            "{}",
            "[{}]",
            r#"{"a":1}"#,
            r#"{"a":2}"#,
            r#"{"b":1}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a":2,"b":1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":["b",1]}"#,
            "18446744073709551615",
        ];
        let hashes: std::collections::HashSet<_> = values.iter().map(|value| of_json(value.as_bytes())).collect();
        assert_eq!((hashes.len(), hashes.contains(&None)), (values.len(), false));
    }

    #[test]
    fn what_is_no_json_has_none() {
        for body in ["", "{", "{} {}", "nul", "[1,]", &"[".repeat(1_000)] {
            assert_eq!(of_json(body.as_bytes()), None, "{body}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\"\\\\é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]{0,2}", inner, 0..4).prop_map(|members| json!(members)),
            ]
        })
    }

    /// The value with its members in the opposite order, and spaces.
    fn respelled(value: &Value) -> String {
        match value {
            Value::Array(items) => format!("[ {} ]", items.iter().map(respelled).collect::<Vec<_>>().join(" , ")),
            Value::Object(members) => {
                let members =
                    members.iter().rev().map(|(name, value)| format!("{}: {}", json!(name), respelled(value)));
                format!("{{\n{}\n}}", members.collect::<Vec<_>>().join(",\t"))
            }
            other => other.to_string(),
        }
    }

    proptest! {
        #[test]
        fn equal_values_have_equal_hashes_and_others_have_not(first in value(), second in value()) {
            let hash = |text: &str| of_json(text.as_bytes());
            prop_assert_eq!(hash(&first.to_string()), hash(&respelled(&first)));
            prop_assert_eq!(first == second, hash(&first.to_string()) == hash(&second.to_string()));
        }
    }
}
