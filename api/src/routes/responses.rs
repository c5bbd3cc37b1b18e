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
    IntoResponses, ToSchema,
    openapi::{RefOr, ResponseBuilder, response::Response as Described},
};

use crate::problem::ApiError;

/// What a call answers.
pub type ApiResult<T = Response> = Result<T, ApiError>;

/// What a call answers whose success is a body of JSON and the status 200.
pub type JsonResult<T> = ApiResult<Json<T>>;

/// A body, with the path of what it describes in `Location`.
pub fn located(status: StatusCode, location: String, body: impl Serialize) -> Response {
    (status, [(header::LOCATION, location)], Json(body)).into_response()
}

/// Refuses a body with errors.
pub fn validate(errors: Vec<FieldError>) -> Result<()> {
    if errors.is_empty() { Ok(()) } else { Err(Error::ValidationFailed(errors)) }
}

/// The status of what is accepted and has no outcome yet.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Pending {
    Pending,
}

/// The problems of a call that reads the database.
pub struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> Responses {
        described(&[("400", "VALIDATION_FAILED"), ("503", "DEPENDENCY_UNAVAILABLE")])
    }
}

/// The problems of an administrator's call, beside those of its body.
pub struct AdminProblems;

impl IntoResponses for AdminProblems {
    fn responses() -> Responses {
        described(&[("401", "UNAUTHENTICATED"), ("403", "FORBIDDEN"), ("503", "DEPENDENCY_UNAVAILABLE")])
    }
}

/// Declares `Problems`, the responses of a call: for each status the codes that it can have, and those of a common set.
macro_rules! problems {
    ($($base:ident:)? $($status:literal $codes:literal),+) => {
        pub struct Problems;

        impl ::utoipa::IntoResponses for Problems {
            fn responses() -> $crate::routes::responses::Responses {
                let own = $crate::routes::responses::described(&[$((stringify!($status), $codes)),+]);
                own.into_iter()$(.chain(<$crate::routes::responses::$base as ::utoipa::IntoResponses>::responses()))?.collect()
            }
        }
    };
}
pub(super) use problems;

/// By their status.
pub type Responses = BTreeMap<String, RefOr<Described>>;

pub fn described(codes: &[(&str, &str)]) -> Responses {
    // The document adds the content of problems to all calls.
    let problem = |codes: &str| RefOr::T(ResponseBuilder::new().description(codes).build());
    codes.iter().map(|(status, codes)| ((*status).to_owned(), problem(codes))).collect()
}
