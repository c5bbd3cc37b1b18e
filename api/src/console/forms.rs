//! Forms and queries, as browsers send them.

use axum::{
    extract::FromRequestParts,
    http::request::Parts,
    response::{IntoResponse as _, Response},
};
use dibs_common::error::Error;

use super::page::encoded;
use crate::problem::ApiError;

/// The fields of a form whose token was checked, or of a query. What cannot be decoded is left out.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn read(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(n, v)| (decode(n), decode(v))).collect(),
        )
    }

    pub fn of<const N: usize>(pairs: [(&str, String); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The first value of that name, without blanks around it; empty when there is none.
    pub fn text(&self, name: &str) -> &str {
        self.given(name).unwrap_or_default()
    }

    /// The same; none when it is empty.
    pub fn given(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.trim());
        value.filter(|value| !value.is_empty())
    }

    pub fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Of these names those that are given, as the query of a link or call.
    pub fn query(&self, names: &[&str]) -> String {
        let pairs = names.iter().filter_map(|name| self.given(name).map(|value| format!("{name}={}", encoded(value))));
        pairs.collect::<Vec<_>>().join("&")
    }

    /// The query that gives the reason of an action.
    pub fn reason_query(&self) -> String {
        let query = self.query(&["reason"]);
        if query.is_empty() { query } else { format!("?{query}") }
    }

    /// The id that makes a form that is sent twice one operation.
    pub fn operation(&self) -> Option<&str> {
        self.given("operation")
    }
}

/// `%20` and `+`, as `application/x-www-form-urlencoded` says. What is no encoding stays.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let encoded = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = encoded.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = if byte.is_some() { &after[2..] } else { after };
        bytes.push(byte.unwrap_or(if *first == b'+' { b' ' } else { *first }));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The fields of a form, which the guard has read.
impl<S: Sync> FromRequestParts<S> for Fields {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let fields = parts.extensions.get().cloned();
        fields.ok_or_else(|| ApiError(Error::internal("a form without its guard")).into_response())
    }
}

/// The fields of the query.
pub struct QueryFields(pub Fields);

impl<S: Sync> FromRequestParts<S> for QueryFields {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(Fields::read(parts.uri.query().unwrap_or_default().as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_trimmed() {
        let fields = Fields::read("name=%EC%BB%A4%ED%94%BC+1&empty=&a=1&a=2&broken=%zz%4&x%3Dy=z".as_bytes());
        assert_eq!(fields.text("name"), "커피 1");
        assert_eq!((fields.given("empty"), fields.given("missing")), (None, None));
        assert_eq!(fields.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((fields.text("broken"), fields.text("x=y")), ("%zz%4", "z"));
        assert_eq!(fields.query(&["a", "empty", "name"]), "a=1&name=%EC%BB%A4%ED%94%BC%201");
    }
}
