use chrono::NaiveDate;
use dibs_common::{identifiers::ProductId, redis::sales};

use super::best_sellers::{counted_days, days_error, days_schema, three};
use crate::{
    app::App,
    rankings::{Ranking, RankingSource},
    routes::prelude::*,
};

/// In which ranking.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RankQuery {
    /// Over how many business days, today included: 1, 3 or 7.
    #[serde(default = "three")]
    #[param(schema_with = days_schema)]
    days: u8,
}

/// Where a product is among what sold best.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProductRank {
    product_id: ProductId,
    /// 1 for what sold best; null when it sold nothing, or when it is beyond the first 1,000 and Redis cannot be asked.
    #[schema(required)]
    rank: Option<u64>,
    /// Units of orders paid in these days, and not cancelled since.
    sold_quantity: i64,
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
}

problems! { ReadProblems: 404 "PRODUCT_NOT_FOUND" }

/// Look up where a product is among what sold best
#[utoipa::path(
    get, path = "/products/{productId}/rank", operation_id = "getProductRank", tag = "products", params(RankQuery),
    responses((status = 200, description = "its rank and units", body = ProductRank), Problems),
)]
pub async fn rank(
    app: SharedApp,
    PathParams(product): PathParams<ProductId>,
    QueryParams(RankQuery { days }): QueryParams<RankQuery>,
) -> JsonResult<ProductRank> {
    if let Some(error) = days_error(days) {
        return Err(ApiError(Error::ValidationFailed(vec![error])));
    }
    let ranking = app.rankings.of(days).await?;
    let listed = (1..).zip(ranking.sold.iter()).find(|(_, (listed, _))| *listed == product);
    let (rank, sold_quantity) = match listed {
        Some((rank, (_, units))) => (Some(rank), *units),
        None => unlisted(&app, &ranking, product).await?,
    };
    let (from, to, updated_at) = (ranking.from(), ranking.source.to(), ranking.source.updated_at());
    Ok(Json(ProductRank { product_id: product, rank, sold_quantity, days, from, to, updated_at }))
}

/// The place of a product that is not among those in memory.
async fn unlisted(app: &App, ranking: &Ranking, product: ProductId) -> Result<(Option<u64>, i64), Error> {
    // Only here: a product in the ranking exists, and most requests ask for one of these.
    db::found(db::products::find(&app.database.pool(), product), Error::ProductNotFound(product)).await?;
    match ranking.source {
        RankingSource::Redis(..) => {
            let place = sales::window_rank(&app.redis, ranking.days, product).await?;
            Ok(place.map_or((None, 0), |(rank, units)| (Some(rank), units)))
        }
        RankingSource::Tables(to, _) => {
            let pool = &app.database.pool();
            let units = db::best_sellers::sum_units(pool, product, to, ranking.days);
            Ok((None, db::within(units).await?))
        }
        RankingSource::Empty(_) => Ok((None, 0)),
    }
}
