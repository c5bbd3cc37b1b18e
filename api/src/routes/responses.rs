//! What responses of many calls have in common, and how the OpenAPI document describes it.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use dibs_common::{
    domain::FieldError,
    error::{Error, Result},
};
use serde::Serialize;
use utoipa::{
    IntoResponses,
    openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, response::Response as Described},
};

/// A body, with the path of what it describes in `Location`.
pub fn located(status: StatusCode, location: String, body: impl Serialize) -> Response {
    (status, [(header::LOCATION, location)], Json(body)).into_response()
}

/// Refuses a body with errors.
pub fn validate(errors: Vec<FieldError>) -> Result<()> {
    if errors.is_empty() { Ok(()) } else { Err(Error::ValidationFailed(errors)) }
}

/// The problems of a call that reads the database.
pub struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        problems(&[("400", "VALIDATION_FAILED"), ("503", "DEPENDENCY_UNAVAILABLE")])
    }
}

/// The problems of an administrator's call, beside those of its body.
pub struct AdminProblems;

impl IntoResponses for AdminProblems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        problems(&[("401", "UNAUTHENTICATED"), ("403", "FORBIDDEN"), ("503", "DEPENDENCY_UNAVAILABLE")])
    }
}

fn problems(codes: &[(&str, &str)]) -> BTreeMap<String, RefOr<Described>> {
    let problem = |codes: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        ResponseBuilder::new().description(codes).content("application/json", content).build()
    };
    codes.iter().map(|(status, codes)| ((*status).to_owned(), RefOr::T(problem(codes)))).collect()
}
