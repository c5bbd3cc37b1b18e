use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::TimeDelta;

use crate::identifiers::CouponId;

/// The upper bounds of the buckets of confirm lag; one more bucket has what is longer.
pub const LAG_BOUNDS_MILLIS: [u32; 17] =
    [2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1_000, 2_000, 5_000, 10_000, 30_000];
pub(super) const LAG_BUCKETS: usize = LAG_BOUNDS_MILLIS.len() + 1;

/// What this process has counted of a campaign since its last report.
#[derive(Debug, Default)]
pub struct CampaignCounters {
    accepted: AtomicU64,
    refused: AtomicU64,
    confirmed: AtomicU64,
    lag: [AtomicU64; LAG_BUCKETS],
}

impl CampaignCounters {
    pub fn accept(&self, claims: u64) {
        self.accepted.fetch_add(claims, Ordering::Relaxed);
    }

    pub fn refuse(&self, claims: u64) {
        self.refused.fetch_add(claims, Ordering::Relaxed);
    }

    /// A claim has its coupon, so long after its acceptance.
    pub fn confirm(&self, lag: TimeDelta) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
        let lag = lag.num_milliseconds();
        let bucket = LAG_BOUNDS_MILLIS.partition_point(|bound| i64::from(*bound) < lag);
        self.lag[bucket].fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self) -> Counted {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Counted {
            accepted: take(&self.accepted),
            refused: take(&self.refused),
            confirmed: take(&self.confirmed),
            lag: std::array::from_fn(|bucket| take(&self.lag[bucket])),
        }
    }
}

/// What was counted in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub accepted: u64,
    pub refused: u64,
    pub confirmed: u64,
    pub lag: [u64; LAG_BUCKETS],
}

impl Counted {
    const fn is_nothing(&self) -> bool {
        self.accepted == 0 && self.refused == 0 && self.confirmed == 0
    }
}

type Registry = HashMap<CouponId, Arc<CampaignCounters>>;

// Of the process, as those of metrics are: they are counted where no handle could be passed without a change of every
// function in between.
static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The counters of a campaign in this process. Keep them: each look-up takes a lock.
pub fn campaign(coupon: CouponId) -> Arc<CampaignCounters> {
    Arc::clone(registry().entry(coupon).or_default())
}

/// What was counted of each campaign since the last call, and then counts from 0 again.
pub(super) fn take_all() -> Vec<(CouponId, Counted)> {
    let mut taken = Vec::new();
    registry().retain(|coupon, counters| {
        let counted = counters.take();
        if !counted.is_nothing() {
            taken.push((*coupon, counted));
        }
        // Without an owner nothing counts: it would stay for each campaign that there ever was.
        !counted.is_nothing() || Arc::strong_count(counters) > 1
    });
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_counted_once_and_a_campaign_without_an_owner_is_forgotten() {
        let coupon = CouponId::try_from(7).expect("an id");
        let counters = campaign(coupon);
        counters.accept(3);
        counters.refuse(2);
        for millis in [-5, 2, 3, 40_000] {
            counters.confirm(TimeDelta::milliseconds(millis));
        }
        let taken = take_all();
        let [(of, counted)] = taken[..] else { panic!("{taken:?}") };
        assert_eq!((of, counted.accepted, counted.refused, counted.confirmed), (coupon, 3, 2, 4));
        assert_eq!((counted.lag[0], counted.lag[1], counted.lag[LAG_BUCKETS - 1]), (2, 1, 1));
        assert!(take_all().is_empty());
        assert!(registry().contains_key(&coupon), "it has an owner");
        drop(counters);
        take_all();
        assert!(registry().is_empty());
    }
}
