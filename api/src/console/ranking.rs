//! What sells: the ranking, as bars, and a product's days.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use askama::Template;
use chrono::{Days, NaiveDate};
use dibs_common::{
    db,
    domain::ranking::business_day,
    error::{Error, Result},
    identifiers::ProductId,
    redis::sales,
};
use serde::Deserialize;

use super::{
    charts,
    forms::QueryFields,
    guard::{At, Visit},
    page::{Failure, PageResult, Shell, render},
};

/// Products of a page.
const SHOWN: usize = 20;
/// Days of a product's curve.
const CURVE_DAYS: u64 = 30;
/// Summing up days takes longer than a look-up.
const YESTERDAY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seller {
    rank: u64,
    product_id: u64,
    name: String,
    price: i64,
    sold_quantity: i64,
}

struct Row {
    seller: Seller,
    bar: String,
    /// Ranks won since yesterday; none when it was not ranked then.
    moved: Option<i64>,
    stock: Option<i64>,
}

#[derive(Template)]
#[template(path = "ranking.html")]
struct RankingPage<'p> {
    s: &'p Shell,
    days: u8,
    from: NaiveDate,
    to: NaiveDate,
    updated_at: Option<chrono::DateTime<chrono::Utc>>,
    rows: Vec<Row>,
    knows_yesterday: bool,
}

pub async fn show(visit: Visit, QueryFields(query): QueryFields) -> PageResult {
    let shell = visit.shell("ranking");
    let fail = |error: Error| Failure(shell.clone(), error.into());
    let days = match query.text("days") {
        "1" => 1,
        "7" => 7,
        _ => 3,
    };
    let app = &visit.console.app;
    let ranking = app.rankings.of(days).await.map_err(fail)?;
    let shown = ranking.shown.iter().take(SHOWN).map(|seller| serde_json::from_str(seller.get()));
    let sellers: Vec<Seller> = shown.collect::<Result<_, _>>().map_err(|error| fail(Error::internal(error)))?;
    let to = ranking.source.to();
    // The tables may be of fewer days: then nothing is known of movements.
    let before = yesterday(&visit, to, days).await.unwrap_or_default();
    let ids = sellers.iter().filter_map(|seller| ProductId::try_from(seller.product_id).ok());
    let ids: BTreeSet<ProductId> = ids.collect();
    let products = db::within(db::products::list_by_ids(&app.database.pool(), ids)).await.map_err(fail)?;
    let stocks: HashMap<u64, i64> = products.into_iter().map(|product| (product.id.get(), product.stock)).collect();
    let top = sellers.iter().map(|seller| seller.sold_quantity).max().unwrap_or(0);
    let row = |seller: Seller| Row {
        bar: charts::bar(seller.sold_quantity, top, "sold"),
        moved: before.get(&seller.product_id).map(|rank| rank - i64::try_from(seller.rank).unwrap_or(i64::MAX)),
        stock: stocks.get(&seller.product_id).copied(),
        seller,
    };
    Ok(render(&RankingPage {
        s: &shell,
        days,
        from: ranking.from(),
        to,
        updated_at: ranking.source.updated_at(),
        rows: sellers.into_iter().map(row).collect(),
        knows_yesterday: !before.is_empty(),
    }))
}

/// The ranks of the window that ended a day earlier.
async fn yesterday(visit: &Visit, to: NaiveDate, days: u8) -> Result<HashMap<u64, i64>> {
    let Some(before) = to.checked_sub_days(Days::new(1)) else { return Ok(HashMap::new()) };
    let pool = &visit.console.app.database.pool();
    let sold = db::within_limit(YESTERDAY_TIMEOUT, db::best_sellers::list(pool, before, days)).await?;
    Ok((1..).zip(sold).map(|(rank, (product, _))| (product.get(), rank)).collect())
}

#[derive(Template)]
#[template(path = "product.html")]
struct ProductPage<'p> {
    s: &'p Shell,
    product: dibs_common::domain::product::Product,
    chart: String,
    days: Vec<(NaiveDate, i64)>,
    total: i64,
}

pub async fn product(visit: Visit, At(id): At<ProductId>) -> PageResult {
    let shell = visit.shell("ranking");
    let fail = |error: Error| Failure(shell.clone(), error.into());
    let app = &visit.console.app;
    let pool = &app.database.pool();
    let product = db::found(db::products::find(pool, id), Error::ProductNotFound(id)).await.map_err(fail)?;
    let today = business_day(visit.words.now, visit.words.zone);
    let first = today.checked_sub_days(Days::new(CURVE_DAYS - 1)).unwrap_or(today);
    let stored = db::within(db::console::list_days_of_product(pool, id, first)).await.map_err(fail)?;
    let mut stored: HashMap<NaiveDate, i64> = stored.into_iter().collect();
    // Today is only in Redis, and is missing while that is.
    if let Ok(Some(units)) = sales::units_of_day(&app.redis, today, id).await {
        stored.insert(today, units);
    }
    let days = first.iter_days().take_while(|day| *day <= today);
    let days: Vec<(NaiveDate, i64)> = days.map(|day| (day, stored.get(&day).copied().unwrap_or(0))).collect();
    let units: Vec<i64> = days.iter().map(|(_, units)| *units).collect();
    let (chart, total) = (charts::columns(&units), units.iter().sum());
    Ok(render(&ProductPage { s: &shell, product, chart, days, total }))
}
