use std::collections::{BTreeMap, HashMap};

use fred::{clients::Client, interfaces::HashesInterface as _};
use futures::future::try_join_all;

use super::counters::{Counted, LAG_BOUNDS_MILLIS, LAG_BUCKETS};
use crate::{clock::Timestamp, error::Result, identifiers::CouponId, redis::Redis};

/// How far back a series goes.
pub const SERIES_MINUTES: i64 = 15;
/// How long Redis keeps a minute.
pub(super) const KEPT_SECONDS: i64 = (SERIES_MINUTES + 5) * 60;
/// Processes report up to a second late, and a slow one a little later: minutes that are older do not change.
const CHANGING_MINUTES: i64 = 2;

/// The fields of the hash of a campaign and minute: `a`, `r` and `c` with the second, `l` with the bucket of lag.
pub(super) struct Field;

impl Field {
    pub(super) fn of(counted: &Counted, second: i64) -> Vec<(String, i64)> {
        let counts = [("a", counted.accepted), ("r", counted.refused), ("c", counted.confirmed)];
        let counts = counts.into_iter().map(|(kind, count)| (format!("{kind}{second}"), count));
        let lags = counted.lag.iter().enumerate().map(|(bucket, count)| (format!("l{bucket}"), *count));
        let fields = counts.chain(lags).filter(|(_, count)| *count > 0);
        fields.map(|(field, count)| (field, i64::try_from(count).unwrap_or(i64::MAX))).collect()
    }
}

/// Counts of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    pub accepted: u64,
    pub refused: u64,
    pub confirmed: u64,
}

impl std::ops::AddAssign for Rates {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.confirmed += other.confirmed;
    }
}

#[derive(Clone, Debug)]
struct Minute {
    seconds: [Rates; 60],
    lag: [u64; LAG_BUCKETS],
}

impl Minute {
    /// What is no field of this version is left out.
    fn read(fields: HashMap<String, u64>) -> Self {
        let mut minute = Self { seconds: [Rates::default(); 60], lag: [0; LAG_BUCKETS] };
        for (field, count) in fields {
            let Some((kind, place)) = field.split_at_checked(1) else { continue };
            let Ok(place) = place.parse::<usize>() else { continue };
            match (kind, minute.seconds.get_mut(place), minute.lag.get_mut(place)) {
                ("a", Some(second), _) => second.accepted = count,
                ("r", Some(second), _) => second.refused = count,
                ("c", Some(second), _) => second.confirmed = count,
                ("l", _, Some(bucket)) => *bucket = count,
                _ => {}
            }
        }
        minute
    }
}

/// What was counted of a campaign in the last minutes.
#[derive(Clone, Debug, Default)]
pub struct Series {
    minutes: BTreeMap<i64, Minute>,
}

impl Series {
    /// Reads what may have changed since the last call.
    pub async fn refresh(&mut self, redis: &Redis, coupon: CouponId, now: Timestamp) -> Result<()> {
        let last = now.timestamp().div_euclid(60);
        let first = last - SERIES_MINUTES;
        self.minutes = self.minutes.split_off(&first);
        let is_due = |minute: &i64| *minute > last - CHANGING_MINUTES || !self.minutes.contains_key(minute);
        let due: Vec<i64> = (first..=last).filter(is_due).collect();
        let read = due.iter().map(|minute| read_minute(redis, coupon, *minute));
        for (minute, read) in due.iter().zip(try_join_all(read).await?) {
            self.minutes.insert(*minute, read);
        }
        Ok(())
    }

    /// Sums of `step` seconds each, the oldest first, up to the last whole second.
    pub fn points(&self, now: Timestamp, step: usize) -> Vec<Rates> {
        let end = now.timestamp();
        let step = i64::try_from(step.max(1)).unwrap_or(1);
        let points = SERIES_MINUTES * 60 / step;
        let point = |place: i64| {
            let begin = end - (points - place) * step;
            (begin..begin + step).fold(Rates::default(), |mut sum, second| {
                sum += self.second(second);
                sum
            })
        };
        (0..points).map(point).collect()
    }

    /// The last whole second: the one before it, as reports of the last one are on their way.
    pub fn now(&self, now: Timestamp) -> Rates {
        self.second(now.timestamp() - 1)
    }

    fn second(&self, second: i64) -> Rates {
        let minute = self.minutes.get(&second.div_euclid(60));
        let place = usize::try_from(second.rem_euclid(60)).unwrap_or(0);
        minute.map(|minute| minute.seconds[place]).unwrap_or_default()
    }

    /// The confirm lag in milliseconds that `percent` of the claims of the last two minutes did not exceed; none when
    /// there were none. It is the bound of a bucket, and twice the last one beyond that.
    pub fn lag_millis(&self, now: Timestamp, percent: u64) -> Option<u32> {
        let last = now.timestamp().div_euclid(60);
        let mut lag = [0; LAG_BUCKETS];
        for minute in self.minutes.range(last - 1..=last).map(|(_, minute)| minute) {
            lag.iter_mut().zip(minute.lag).for_each(|(sum, count)| *sum += count);
        }
        let total: u64 = lag.iter().sum();
        let rank = (total * percent).div_ceil(100);
        let mut seen = 0;
        let bucket = lag.iter().position(|count| {
            seen += count;
            total > 0 && seen >= rank
        })?;
        let longest = LAG_BOUNDS_MILLIS[LAG_BOUNDS_MILLIS.len() - 1];
        Some(LAG_BOUNDS_MILLIS.get(bucket).copied().unwrap_or(longest * 2))
    }
}

async fn read_minute(redis: &Redis, coupon: CouponId, minute: i64) -> Result<Minute> {
    let key = redis.keys.live_campaign(coupon, minute);
    let fields: HashMap<String, u64> = redis.run(&key, async |client: Client| client.hgetall(&key).await).await?;
    Ok(Minute::read(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_millis;

    fn series(minute: i64, fields: &[(&str, u64)]) -> Series {
        let fields = fields.iter().map(|(field, count)| ((*field).to_owned(), *count)).collect();
        Series { minutes: BTreeMap::from([(minute, Minute::read(fields))]) }
    }

    #[test]
    fn counts_are_read_at_the_second_that_they_were_written_for() {
        let mut lag = [0; LAG_BUCKETS];
        lag[3] = 4;
        let counted = Counted { accepted: 5, refused: 0, confirmed: 4, lag };
        let fields = Field::of(&counted, 7);
        assert_eq!(fields, [("a7".to_owned(), 5), ("c7".to_owned(), 4), ("l3".to_owned(), 4)]);
        let series = series(10, &[("a7", 5), ("c7", 4), ("r61", 9), ("x1", 9), ("l3", 4), ("", 1)]);
        let at = from_millis(608_000);
        assert_eq!(series.now(at), Rates { accepted: 5, refused: 0, confirmed: 4 });
        let points = series.points(at, 5);
        assert_eq!(points.len(), 180);
        assert_eq!(points[179], Rates { accepted: 5, refused: 0, confirmed: 4 });
        assert_eq!(points[178], Rates::default());
    }

    #[test]
    fn percentiles_are_bounds_of_buckets() {
        let series = series(10, &[("l0", 98), ("l4", 1), ("l17", 1)]);
        let at = from_millis(600_000);
        assert_eq!(series.lag_millis(at, 50), Some(2));
        assert_eq!(series.lag_millis(at, 99), Some(30));
        assert_eq!(series.lag_millis(at, 100), Some(60_000));
        assert_eq!(Series::default().lag_millis(at, 50), None);
    }
}
