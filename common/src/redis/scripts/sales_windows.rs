use chrono::NaiveDate;
use fred::types::Value;
use uuid::Uuid;

use crate::{
    domain::ranking::{WINDOWS, first_of},
    redis::Redis,
};

/// The end of `sales_build_step` and `sales_put`.
macro_rules! with_sales_show {
    ($script:literal) => {
        concat!(include_str!($script), include_str!("../../../../lua/shared/sales_show.lua"))
    };
}
pub(super) use with_sales_show;

/// How long a window is served when no worker replaces it. Its info says how old it is.
pub(super) const RETENTION_SECONDS: i64 = 24 * 60 * 60;

/// `window, staged, info` of each window.
pub(super) fn keys(redis: &Redis, staged: Uuid) -> impl Iterator<Item = String> {
    WINDOWS.iter().flat_map(move |days| {
        let window = redis.keys.sales_window(*days);
        let staged = redis.keys.staged(&window, staged);
        [window, staged, redis.keys.sales_window_info(*days)]
    })
}

/// `from, to` of each window whose last day is `to`.
pub(super) fn spans(to: NaiveDate) -> impl Iterator<Item = Value> {
    WINDOWS.iter().flat_map(move |days| [first_of(to, *days).to_string().into(), to.to_string().into()])
}
