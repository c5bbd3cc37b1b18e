use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderValue, header, request::Parts},
};
use dibs_common::{Error, Result};

/// The versions that a change may be applied to (RFC 9110, section 13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// There is no such header.
    Missing,
    /// `*`: whatever version there is.
    Any,
    /// Of these entity tags. A tag that Dibs never gives out matches nothing, and is left out.
    Revisions(Vec<u32>),
}

impl IfMatch {
    /// The revisions that are expected; none: any.
    ///
    /// # Errors
    /// [`Error::PreconditionRequired`] when the header is missing: without it the caller may overwrite a change that it
    /// has not seen.
    pub fn required(self) -> Result<Option<Vec<u32>>> {
        if self == Self::Missing { Err(Error::PreconditionRequired) } else { Ok(self.optional()) }
    }

    /// The revisions that are expected; none: any.
    pub fn optional(self) -> Option<Vec<u32>> {
        match self {
            Self::Missing | Self::Any => None,
            Self::Revisions(revisions) => Some(revisions),
        }
    }

    fn read<'v>(values: impl Iterator<Item = &'v HeaderValue>) -> Self {
        let mut revisions = None;
        for value in values {
            let tags = value.to_str().unwrap_or_default();
            if tags.trim() == "*" {
                return Self::Any;
            }
            // Weak tags never match here: If-Match compares strongly.
            let read =
                tags.split(',').filter_map(|tag| tag.trim().strip_prefix('"')?.strip_suffix('"')?.parse::<u32>().ok());
            revisions.get_or_insert_with(Vec::new).extend(read);
        }
        revisions.map_or(Self::Missing, Self::Revisions)
    }
}

/// The entity tag of a revision, for the `ETag` of a response.
pub fn entity_tag(revision: u32) -> String {
    format!("\"{revision}\"")
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::read(parts.headers.get_all(header::IF_MATCH).iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> IfMatch {
        let values: Vec<HeaderValue> = values.iter().map(|value| HeaderValue::from_static(value)).collect();
        IfMatch::read(values.iter())
    }

    #[test]
    fn tags_are_read_and_those_of_others_match_nothing() {
        assert_eq!(read(&[]), IfMatch::Missing);
        assert_eq!(read(&["*"]), IfMatch::Any);
        assert_eq!(read(&[r#""7""#]), IfMatch::Revisions(vec![7]));
        assert_eq!(read(&[r#""7", "8""#, r#""9""#]), IfMatch::Revisions(vec![7, 8, 9]));
        assert_eq!(read(&[r#"W/"7", 8, "x""#]), IfMatch::Revisions(vec![]));
        assert_eq!(read(&[&*entity_tag(12).leak()]), IfMatch::Revisions(vec![12]));
    }

    #[test]
    fn a_missing_header_is_an_error_where_it_is_required() {
        assert!(matches!(read(&[]).required(), Err(Error::PreconditionRequired)));
        assert_eq!(read(&["*"]).required().ok(), Some(None));
        assert_eq!(read(&[]).optional(), None);
    }
}
