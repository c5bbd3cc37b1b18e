//! What the files of most calls use. Each of them imports it whole, and by name only what is its own.

pub use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
pub use chrono::{DateTime, Utc};
pub use dibs_common::{
    db,
    error::{Error, Result},
};
pub use serde::{Deserialize, Serialize};
pub use utoipa::{IntoParams, ToSchema};

pub(super) use super::responses::problems;
pub use super::responses::{ApiResult, JsonResult, ReadProblems, located, validate};
pub use crate::{
    app::SharedApp,
    extract::{
        Action, ActionQuery, Administrator, Change, ChangeQuery, JsonBody, List, ListParams, NoFilter, Page,
        PathParams, QueryParams, Several,
    },
    problem::{ApiError, Problem},
};
