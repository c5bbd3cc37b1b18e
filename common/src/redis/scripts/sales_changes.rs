use std::collections::BTreeMap;

use chrono::NaiveDate;
use chrono_tz::Tz;
use fred::types::Value;

use crate::{
    domain::ranking::{SalesChange, WINDOWS, expires_at},
    redis::{Redis, keys::sales_member},
};

/// The end of `sales_apply` and `sales_count`.
macro_rules! with_sales_changes {
    ($script:literal) => {
        concat!(include_str!($script), include_str!("../../../../lua/shared/sales_changes.lua"))
    };
}
pub(super) use with_sales_changes;

/// The days that changes touch, numbered from 1 as the scripts do.
pub(super) struct Days(BTreeMap<NaiveDate, usize>);

impl Days {
    pub fn of<'c>(changes: impl Iterator<Item = &'c SalesChange>) -> Self {
        let mut days: BTreeMap<NaiveDate, usize> = changes.map(|change| (change.day, 0)).collect();
        for (place, number) in days.values_mut().zip(1..) {
            *place = number;
        }
        Self(days)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All keys of a script.
    pub fn keys(&self, redis: &Redis) -> Vec<String> {
        let spelled = &redis.keys;
        let mut keys =
            vec![spelled.sales_applied(), spelled.sales_counted(), spelled.sales_building(), spelled.sales_changed()];
        keys.extend(self.0.keys().map(|day| spelled.daily_sales(*day)));
        keys.extend(WINDOWS.iter().flat_map(|days| [spelled.sales_window(*days), spelled.sales_window_info(*days)]));
        keys
    }

    /// `expires_at, date` of each day.
    pub fn arguments(&self, zone: Tz) -> impl Iterator<Item = Value> {
        self.0.keys().flat_map(move |day| [expires_at(*day, zone).timestamp().into(), day.to_string().into()])
    }

    /// `day, product, units` of a change.
    pub fn change(&self, change: &SalesChange) -> [Value; 3] {
        let SalesChange { day, product, units } = change;
        let day = self.0.get(day).copied().unwrap_or_default();
        [day.to_string(), sales_member(*product), units.to_string()].map(Value::from)
    }
}
