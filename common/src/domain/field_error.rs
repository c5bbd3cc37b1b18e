use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;

/// A field of a request that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Path of the field, such as `discount.value`.
    pub field: Cow<'static, str>,
    /// What was expected.
    pub message: String,
}

impl FieldError {
    /// The field at `field` is wrong because of `message`.
    pub fn new(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}
