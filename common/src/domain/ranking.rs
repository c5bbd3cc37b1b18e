//! Best sellers: the business day of an order, the scores of products, and their order in a ranking.
//!
//! The score of a product and day is the units of the orders paid on that day, minus those cancelled since.

use std::collections::BTreeMap;

use chrono::{Datelike, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone as _};
use chrono_tz::Tz;
use serde::Deserialize;

use crate::{clock::Timestamp, identifiers::ProductId};

/// Lengths of rankings in days, today included.
pub const WINDOWS: [u8; 3] = [1, 3, 7];
pub const LONGEST_WINDOW: u8 = WINDOWS[WINDOWS.len() - 1];
pub const MAX_RANKED_PRODUCTS: u32 = 1_000;
/// Days that Redis keeps, today included: the longest window and two more, as clocks and time zones differ.
pub const KEPT_DAYS: u64 = 9;

/// The types of the events that change scores: paid, then cancelled.
pub const EVENTS: [&str; 2] = ["order.paid", "order.cancelled"];

pub type Scores = BTreeMap<ProductId, i64>;

/// A change of the score of a product on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SalesChange {
    pub day: NaiveDate,
    pub product: ProductId,
    /// Negative when an order was cancelled.
    pub units: i64,
}

/// Whether the time or the day of a payment is plausible. Not every representable time has a date in every time zone.
pub fn is_plausible(paid: &impl Datelike) -> bool {
    (1970..=9999).contains(&paid.year())
}

/// The fields of an order that the ranking needs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SoldOrder {
    pub items: Vec<SoldItem>,
    #[serde(default)]
    pub paid_at: Option<Timestamp>,
    /// The day of the sale. Events of older versions have none.
    #[serde(default)]
    pub paid_on: Option<NaiveDate>,
}

impl SoldOrder {
    /// The day on which its units count. As stored: the shop may have changed its time zone since. Only an order
    /// without a stored day is counted on the day of its payment in `zone`. None when that is [not
    /// plausible](is_plausible).
    pub fn day_of_sale(&self, zone: Tz) -> Option<NaiveDate> {
        match self.paid_on {
            Some(day) => Some(day).filter(is_plausible),
            None => self.paid_at.filter(is_plausible).map(|at| business_day(at, zone)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SoldItem {
    pub product_id: ProductId,
    pub quantity: u32,
}

/// The business day of a time.
pub fn business_day(at: Timestamp, zone: Tz) -> NaiveDate {
    at.with_timezone(&zone).date_naive()
}

/// The start of a business day: midnight, or the first later time that exists where a clock change skips midnight.
pub fn start_of(day: NaiveDate, zone: Tz) -> Timestamp {
    let midnight = day.and_time(NaiveTime::MIN);
    // No time zone changes its clocks by other than quarters of an hour.
    let quarters = (0..=96).map(|quarter| midnight + TimeDelta::minutes(15 * quarter));
    let start = quarters.into_iter().find_map(|local| zone.from_local_datetime(&local).earliest());
    start.map_or_else(|| midnight.and_utc(), |start| start.to_utc())
}

pub fn days_before(day: NaiveDate, days: u64) -> NaiveDate {
    day.checked_sub_days(Days::new(days)).unwrap_or(NaiveDate::MIN)
}

pub fn days_after(day: NaiveDate, days: u64) -> NaiveDate {
    day.checked_add_days(Days::new(days)).unwrap_or(NaiveDate::MAX)
}

/// The last `days` days up to `to`, the latest first.
pub fn last_days(to: NaiveDate, days: u64) -> impl Iterator<Item = NaiveDate> {
    (0..days).map(move |back| days_before(to, back))
}

/// The first of `days` days up to `to`.
pub fn first_of(to: NaiveDate, days: u8) -> NaiveDate {
    days_before(to, u64::from(days).saturating_sub(1))
}

/// When Redis may delete the counters of a day.
pub fn expires_at(day: NaiveDate, zone: Tz) -> Timestamp {
    start_of(days_after(day, KEPT_DAYS), zone)
}

/// The changes of an event of type `kind`. A cancellation counts on the day of the sale, so that it takes back what the
/// payment added. An order without a plausible day changes nothing.
pub fn sales_changes(kind: &str, order: &SoldOrder, zone: Tz) -> Vec<SalesChange> {
    let sign = match kind {
        "order.paid" => 1,
        "order.cancelled" => -1,
        _ => return Vec::new(),
    };
    let Some(day) = order.day_of_sale(zone) else { return Vec::new() };
    let items = order.items.iter();
    items.map(|item| SalesChange { day, product: item.product_id, units: sign * i64::from(item.quantity) }).collect()
}

/// Changes a score, and removes it when it is 0.
pub fn add(scores: &mut Scores, product: ProductId, units: i64) {
    let score = scores.entry(product).or_default();
    *score += units;
    // A product that sold nothing has no rank.
    if *score == 0 {
        scores.remove(&product);
    }
}

/// The sum of the scores of several days.
pub fn union<'s>(days: impl IntoIterator<Item = &'s Scores>) -> Scores {
    let mut sum = Scores::new();
    for (product, units) in days.into_iter().flatten() {
        add(&mut sum, *product, *units);
    }
    sum
}

/// The first `limit` products by units, most first. Of two with the same units the lower id comes first.
pub fn ranked(scores: &Scores, limit: usize) -> Vec<(ProductId, i64)> {
    let mut ranked: Vec<(ProductId, i64)> = scores.iter().map(|(product, units)| (*product, *units)).collect();
    ranked.sort_by_key(|(product, units)| (-units, *product));
    ranked.truncate(limit);
    ranked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEOUL: Tz = chrono_tz::Asia::Seoul;

    fn product(number: u64) -> ProductId {
        number.try_into().expect("an id")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    #[test]
    fn a_business_day_begins_at_midnight_of_the_shop() {
        let day: NaiveDate = "2026-11-21".parse().expect("a day");
        assert_eq!(start_of(day, SEOUL), at("2026-11-20T15:00:00Z"));
        assert_eq!(business_day(at("2026-11-20T14:59:59.999Z"), SEOUL), days_before(day, 1));
        assert_eq!(business_day(at("2026-11-20T15:00:00Z"), SEOUL), day);
        assert_eq!(expires_at(day, SEOUL), at("2026-11-29T15:00:00Z"));
    }

    #[test]
    fn a_day_without_midnight_begins_an_hour_later() {
        let day: NaiveDate = "2024-04-26".parse().expect("a day");
        let zone = chrono_tz::Africa::Cairo;
        let start = start_of(day, zone);
        assert_eq!(business_day(start, zone), day);
        assert_eq!(business_day(start - TimeDelta::milliseconds(1), zone), days_before(day, 1));
    }

    #[test]
    fn an_implausible_payment_time_changes_nothing() {
        let items = vec![SoldItem { product_id: product(1), quantity: 2 }];
        let paid = |at| SoldOrder { items: items.clone(), paid_at: Some(at), paid_on: None };
        for (at, counted) in [
            (at("1970-01-01T00:00:00Z"), 1),
            (at("9999-12-31T23:59:59Z"), 1),
            (at("1969-12-31T23:59:59Z"), 0),
            (Timestamp::MAX_UTC, 0),
            (Timestamp::MIN_UTC, 0),
        ] {
            assert_eq!(sales_changes("order.paid", &paid(at), SEOUL).len(), counted, "{at}");
        }
        let far = SoldOrder { paid_on: Some(NaiveDate::MAX), ..paid(at("2026-11-21T00:00:00Z")) };
        assert_eq!(sales_changes("order.paid", &far, SEOUL), []);
    }

    #[test]
    fn i9_a_sale_stays_on_its_day_when_the_shop_changes_its_time_zone() {
        let items = vec![SoldItem { product_id: product(1), quantity: 2 }];
        let paid_at = Some(at("2026-11-20T16:00:00Z"));
        let (before, after) = (SEOUL, chrono_tz::UTC);
        let day = "2026-11-21".parse().ok();
        let order = SoldOrder { items, paid_at, paid_on: day };
        for kind in EVENTS {
            assert_eq!(sales_changes(kind, &order, after), sales_changes(kind, &order, before));
        }
        let old = SoldOrder { paid_on: None, ..order };
        assert_eq!((old.day_of_sale(before), old.day_of_sale(after)), (day, "2026-11-20".parse().ok()));
    }

    #[test]
    fn ties_go_to_the_lower_product_id() {
        let scores = Scores::from([(product(9), 5), (product(10), 5), (product(1), 2)]);
        assert_eq!(ranked(&scores, 2), [(product(9), 5), (product(10), 5)]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pay {
            units: Vec<(u64, u32)>,
        },
        Cancel {
            order: usize,
        },
        Wait {
            minutes: i64,
        },
        /// The shop changes its time zone, between Seoul and UTC.
        Move {
            is_to_seoul: bool,
        },
        /// A delivery of at most so many events; `dies` before the cursor is moved.
        Deliver {
            events: usize,
            dies: bool,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => prop::collection::vec((1..4_u64, 1..5_u32), 1..3).prop_map(|units| Step::Pay { units }),
            2 => any::<prop::sample::Index>().prop_map(|order| Step::Cancel { order: order.index(64) }),
            1 => (1..2_000_i64).prop_map(|minutes| Step::Wait { minutes }),
            1 => any::<bool>().prop_map(|is_to_seoul| Step::Move { is_to_seoul }),
            4 => (1..6_usize, any::<bool>()).prop_map(|(events, dies)| Step::Deliver { events, dies }),
        ];
        prop::collection::vec(step, 1..60)
    }

    /// Orders, their events in sequence, and a receiver that knows only how far it has counted.
    #[derive(Default)]
    struct Model {
        zone: Tz,
        orders: Vec<(SoldOrder, bool)>,
        events: Vec<(&'static str, SoldOrder)>,
        cursor: usize,
        applied: usize,
        days: BTreeMap<NaiveDate, Scores>,
    }

    impl Model {
        fn happen(&mut self, step: &Step, now: &mut Timestamp) {
            match step {
                Step::Pay { units } => {
                    let items =
                        units.iter().map(|(id, quantity)| SoldItem { product_id: product(*id), quantity: *quantity });
                    let paid_on = Some(business_day(*now, self.zone));
                    let order = SoldOrder { items: items.collect(), paid_at: Some(*now), paid_on };
                    self.events.push(("order.paid", order.clone()));
                    self.orders.push((order, true));
                }
                Step::Cancel { order } => {
                    if let Some((order, alive @ true)) = self.orders.get_mut(*order) {
                        *alive = false;
                        self.events.push(("order.cancelled", order.clone()));
                    }
                }
                Step::Wait { minutes } => *now += TimeDelta::minutes(*minutes),
                Step::Move { is_to_seoul } => self.zone = if *is_to_seoul { SEOUL } else { chrono_tz::UTC },
                Step::Deliver { events, dies } => self.deliver(*events, *dies),
            }
        }

        fn deliver(&mut self, events: usize, dies: bool) {
            let last = self.events.len().min(self.cursor + events);
            for (place, (kind, order)) in self.events.iter().enumerate().take(last).skip(self.cursor.max(self.applied))
            {
                for SalesChange { day, product, units } in sales_changes(kind, order, self.zone) {
                    add(self.days.entry(day).or_default(), product, units);
                }
                self.applied = place + 1;
            }
            if !dies {
                self.cursor = last;
            }
        }

        fn sums(&self) -> BTreeMap<NaiveDate, Scores> {
            let mut sums: BTreeMap<NaiveDate, Scores> = BTreeMap::new();
            for (order, _) in self.orders.iter().filter(|(_, alive)| *alive) {
                for SalesChange { day, product, units } in sales_changes("order.paid", order, self.zone) {
                    add(sums.entry(day).or_default(), product, units);
                }
            }
            sums
        }
    }

    proptest! {
        /// I9 and I10: payments, cancellations, redelivery, death before the cursor is moved, midnights, other time
        /// zones.
        #[test]
        fn i9_scores_are_the_sums_of_the_orders_after_any_steps(steps in steps()) {
            let (mut model, mut now) = (Model::default(), at("2026-11-21T14:00:00Z"));
            for step in &steps {
                model.happen(step, &mut now);
                prop_assert!(model.days.values().flatten().all(|(_, units)| *units > 0), "{:?}", model.days);
            }
            model.deliver(usize::MAX / 2, false);
            model.days.retain(|_, scores| !scores.is_empty());
            prop_assert_eq!(&model.days, &model.sums());
            let all = union(model.days.values());
            let ranked = ranked(&all, 10);
            prop_assert!(ranked.is_sorted_by(|(a, more), (b, less)| (more, b) > (less, a)), "{:?}", ranked);
        }
    }
}
