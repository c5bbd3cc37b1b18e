use chrono::NaiveDate;
use dibs_common::domain::{FieldError, ranking::WINDOWS};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use crate::{
    rankings::{BestSeller, Ranking},
    routes::prelude::*,
};

/// Which page of which ranking.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BestSellersQuery {
    /// From 1 on. There is nothing after the first 1,000 products.
    #[serde(default = "one")]
    #[param(minimum = 1, maximum = 4_294_967_295_u64)]
    page_number: u32,
    /// Products on a page, 1 to 100.
    #[serde(default = "ten")]
    #[param(minimum = 1, maximum = 100)]
    page_size: u32,
    /// Over how many business days, today included: 1, 3 or 7.
    #[serde(default = "three")]
    #[param(schema_with = days_schema)]
    days: u8,
}

const fn one() -> u32 {
    1
}

const fn ten() -> u32 {
    10
}

pub(super) const fn three() -> u8 {
    3
}

/// The windows that are counted.
pub(super) fn counted_days() -> Object {
    let days = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(7));
    days.enum_values(Some(WINDOWS)).build()
}

/// The same, where one may be chosen.
pub(super) fn days_schema() -> Object {
    let mut days = counted_days();
    days.default = Some(three().into());
    days
}

/// What is wrong with a number of days.
pub(super) fn days_error(days: u8) -> Option<FieldError> {
    (!WINDOWS.contains(&days)).then(|| FieldError::new("days", format!("expected 1, 3 or 7, got {days}")))
}

impl BestSellersQuery {
    fn errors(self) -> Vec<FieldError> {
        let Self { page_number, page_size, days } = self;
        let mut errors = Vec::new();
        if page_number == 0 {
            errors.push(FieldError::new("pageNumber", "expected 1 or more, got 0"));
        }
        if !(1..=100).contains(&page_size) {
            errors.push(FieldError::new("pageSize", format!("expected 1 to 100, got {page_size}")));
        }
        errors.extend(days_error(days));
        errors
    }
}

/// A page of what sold best.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BestSellersPage<'r> {
    #[schema(value_type = Vec<BestSeller>)]
    items: &'r [Box<RawValue>],
    #[schema(schema_with = counted_days)]
    days: u8,
    /// The first business day that is counted.
    from: NaiveDate,
    /// The last business day that is counted: today, or an earlier one while today's sales cannot be read.
    to: NaiveDate,
    /// When a sale changed these days last, or they were counted again; null when nothing was counted yet.
    #[serde(serialize_with = "dibs_common::clock::serialize")]
    #[schema(required)]
    updated_at: Option<DateTime<Utc>>,
    page_number: u32,
    #[schema(maximum = 100)]
    page_size: u32,
}

/// List what sold best
#[utoipa::path(
    get, path = "/products/best-sellers", operation_id = "listBestSellers", tag = "products", params(BestSellersQuery),
    responses((status = 200, description = "the best first", body = BestSellersPage), ReadProblems),
)]
pub async fn best_sellers(
    app: SharedApp,
    QueryParams(query): QueryParams<BestSellersQuery>,
) -> Result<impl IntoResponse, ApiError> {
    validate(query.errors())?;
    let ranking = app.rankings.of(query.days).await?;
    Ok(Json(page(&ranking, query)).into_response())
}

fn page(ranking: &Ranking, BestSellersQuery { page_number, page_size, days }: BestSellersQuery) -> BestSellersPage<'_> {
    // A page beyond the end is empty, not an error: the ranking may have become shorter between two requests.
    let before = (page_number as usize - 1).saturating_mul(page_size as usize).min(ranking.shown.len());
    let after = (before + page_size as usize).min(ranking.shown.len());
    BestSellersPage {
        items: &ranking.shown[before..after],
        days,
        from: ranking.from(),
        to: ranking.source.to(),
        updated_at: ranking.source.updated_at(),
        page_number,
        page_size,
    }
}
