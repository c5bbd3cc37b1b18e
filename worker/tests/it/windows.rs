//! The windows of the ranking, while they are built and sales go on.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use dibs_common::{
    clock,
    domain::{
        event::{Epoch, Position},
        ranking::{
            SalesChange, Scores, WINDOWS, add, business_day, days_after, days_before, expires_at, last_days, union,
        },
    },
    identifiers::{ProductId, new_uuid, random_below},
    redis::{
        Redis, SalesBatch, SalesCounted, SalesCounter, sales,
        scripts::{BuildStep, sales_put},
    },
    testing::{RedisCluster, TestEnvironment, expect_windows_of_days},
};
use dibs_worker::ranking::{WindowBuild, WindowsBuilt, warm};

use crate::ranking::ZONE;

fn product(number: u64) -> ProductId {
    number.try_into().expect("an id")
}

/// Sales, as they are counted in Redis and as a simple model knows them.
struct Shop<'r> {
    redis: &'r Redis,
    today: NaiveDate,
    sequence: u64,
    days: BTreeMap<NaiveDate, Scores>,
}

impl<'r> Shop<'r> {
    /// With empty windows up to today.
    async fn open(redis: &'r Redis) -> Self {
        let shop = Self { redis, today: business_day(clock::now(), ZONE), sequence: 0, days: BTreeMap::new() };
        shop.rebuild(shop.today).await;
        shop
    }

    /// Puts the days of the model and the windows up to `to`, as a rebuild does.
    async fn rebuild(&self, to: NaiveDate) {
        let (rebuild, keys) = (new_uuid(), &self.redis.keys);
        let mut put = Vec::new();
        sales::invalidate(self.redis).await.expect("invalidated");
        for (day, scores) in &self.days {
            let staged = keys.staged(&keys.daily_sales(*day), rebuild);
            sales::write_staged(self.redis, &staged, scores, 1).await.expect("staged");
            put.push((*day, expires_at(*day, ZONE)));
        }
        for window in WINDOWS {
            let staged = keys.staged(&keys.sales_window(window), rebuild);
            sales::write_staged(self.redis, &staged, &self.sold(window, to), -1).await.expect("staged");
        }
        let position = Position { epoch: Epoch(0), sequence: self.sequence };
        assert!(sales_put(self.redis, rebuild, position, &put, to).await.expect("put"));
    }

    fn sold(&self, window: u8, to: NaiveDate) -> Scores {
        union(last_days(to, window.into()).filter_map(|day| self.days.get(&day)))
    }

    /// Counts an event that sells these units of products, days ago.
    async fn sell(&mut self, changes: impl IntoIterator<Item = (u64, u64, i64)>) {
        let sequence = self.sequence + 1;
        let change = |(ago, of, units)| SalesChange { day: days_before(self.today, ago), product: product(of), units };
        let changes: Vec<(u64, SalesChange)> = changes.into_iter().map(|sold| (sequence, change(sold))).collect();
        for (_, SalesChange { day, product, units }) in &changes {
            add(self.days.entry(*day).or_default(), *product, *units);
        }
        let batch = SalesBatch::Outbox { sequences: sequence..=sequence, changes: &changes };
        // Each event is delivered twice.
        for _ in 0..2 {
            let counted = SalesCounter::new(self.redis, ZONE).count(batch.clone()).await.expect("redis");
            assert_eq!(counted, SalesCounted::Counted);
        }
        self.sequence = sequence;
    }

    /// Redis holds what the model knows, in windows up to any day.
    async fn expect_exact(&self, what: &str) {
        let to = sales::window_info(self.redis, 1).await.expect("redis").expect("a window").to;
        expect_windows_of_days(self.redis, to, what).await;
        for window in WINDOWS {
            let shown = sales::whole_window(self.redis, window).await.expect("redis");
            assert_eq!(shown, self.sold(window, to), "{what}: {window} days up to {to}");
        }
    }

    async fn begin(&self, to: NaiveDate) -> WindowBuild<'r> {
        WindowBuild::begin(self.redis, to).await.expect("redis").expect("begun")
    }

    async fn warm(&self) -> WindowsBuilt {
        warm(self.redis, ZONE, clock::now()).await.expect("redis")
    }
}

async fn read_days(build: &mut WindowBuild<'_>) {
    while build.read_day().await.expect("redis") {}
}

/// I9 and I10: whenever a sale is counted while the windows are built, it is in them exactly once; and what was read of
/// a sale that is cancelled meanwhile is not.
#[tokio::test]
async fn i10_a_sale_counted_at_any_stage_of_a_build_is_in_the_windows_once() {
    let environment = TestEnvironment::new().await;
    let mut shop = Shop::open(&environment.redis).await;
    for round in 0..3 {
        // More products than one page has.
        shop.sell((1..=1_500).map(|of| (round, of, 2))).await;
        let what = |stage: &str| format!("round {round}, {stage}");
        let mut build = shop.begin(shop.today).await;
        shop.sell([(0, 1, 1), (6, 2, 1), (7, 3, 1)]).await;
        shop.expect_exact(&what("before any day was read")).await;
        let mut days = 0;
        while build.read_day().await.expect("redis") {
            days += 1;
            // Of days that were read, and of days that were not.
            shop.sell([(0, 10 + days, 1), (days, 20 + days, 1), (6, 30 + days, 1), (round, 40 + days, -2)]).await;
            shop.sell([(2, 2_000 + days, 3)]).await;
        }
        assert_eq!(days, 7);
        shop.expect_exact(&what("when all days were read")).await;
        let mut steps = 0;
        while build.step(10).await.expect("redis") == BuildStep::More {
            shop.sell([(0, 50 + steps, 1), (round, 60 + steps, -2), (2, 2_001, -1)]).await;
            shop.sell([(2, 2_001, 1)]).await;
            shop.expect_exact(&what("between two steps")).await;
            steps += 1;
            assert!(steps < 100, "it comes to no end");
        }
        assert!(steps >= 3, "{steps}");
        shop.expect_exact(&what("when it was shown")).await;
        shop.sell([(0, 70, 1)]).await;
        shop.expect_exact(&what("and goes on")).await;
    }
    environment.end().await;
}

/// A page of a day is read, a sale is counted, and the next page is read.
#[tokio::test(flavor = "multi_thread")]
async fn i10_sales_counted_between_the_pages_of_a_day_are_in_the_windows_once() {
    let environment = TestEnvironment::new().await;
    let mut shop = Shop::open(&environment.redis).await;
    shop.sell((1..=5_000).map(|of| (0, of, 3))).await;
    shop.sell((1..=5_000).map(|of| (2, of, 3))).await;
    let redis = environment.redis.clone();
    let building = tokio::spawn(async move {
        let mut shown = 0;
        while shown < 5 {
            let built = warm(&redis, ZONE, clock::now()).await.expect("redis");
            assert!(matches!(built, WindowsBuilt::Shown { .. }), "{built:?}");
            shown += 1;
        }
    });
    while !building.is_finished() {
        let of = |number: u64| 1 + u64::from(random_below(5_000)) + number * 100;
        shop.sell([(0, of(0), 1), (2, of(1), -1), (2, of(2), 1), (0, of(3), -1)]).await;
    }
    building.await.expect("built");
    assert!(shop.sequence > 10, "sales went on: {}", shop.sequence);
    shop.expect_exact("after five builds").await;
    environment.end().await;
}

#[tokio::test]
async fn a_superseded_build_changes_nothing_and_the_newer_one_is_shown() {
    let environment = TestEnvironment::new().await;
    let mut shop = Shop::open(&environment.redis).await;
    shop.sell([(0, 1, 1), (1, 2, 1)]).await;
    let mut older = shop.begin(shop.today).await;
    read_days(&mut older).await;
    let mut newer = shop.begin(shop.today).await;
    shop.sell([(0, 1, 1)]).await;
    assert_eq!(older.step(10).await.expect("redis"), BuildStep::Superseded);
    shop.expect_exact("the older was not shown").await;
    read_days(&mut newer).await;
    assert_eq!(newer.step(10).await.expect("redis"), BuildStep::Shown);
    shop.expect_exact("the newer").await;
    // The days are replaced by others while a build has read the old ones.
    let mut build = shop.begin(shop.today).await;
    read_days(&mut build).await;
    shop.days.insert(shop.today, Scores::from([(product(9), 9)]));
    shop.rebuild(shop.today).await;
    assert_eq!(build.step(10).await.expect("redis"), BuildStep::Superseded);
    shop.expect_exact("rebuilt").await;
    environment.end().await;
}

/// At each stage a build crashes, and another follows.
#[tokio::test]
async fn a_build_that_crashes_at_any_stage_does_not_disturb_the_next() {
    let environment = TestEnvironment::new().await;
    let mut shop = Shop::open(&environment.redis).await;
    for stage in 0..10 {
        shop.sell([(0, 1 + stage, 2), (stage, 20, 1)]).await;
        let mut build = shop.begin(shop.today).await;
        for _ in 0..stage.min(7) {
            assert!(build.read_day().await.expect("redis"));
        }
        shop.sell([(0, 1 + stage, -2), (stage, 20, 1), (0, 30 + stage, 1), (0, 50 + stage, 1)]).await;
        if stage > 7 {
            assert_eq!(build.step(1).await.expect("redis"), BuildStep::More);
        }
        drop(build);
        shop.expect_exact("crashed").await;
        shop.sell([(0, 40 + stage, 1)]).await;
        assert!(matches!(shop.warm().await, WindowsBuilt::Shown { .. }));
        shop.expect_exact("the next").await;
    }
    environment.end().await;
}

/// The windows are of yesterday until the job has run: today's sales are counted for it, and the first day falls out.
#[tokio::test]
async fn at_midnight_the_job_adds_the_new_day_and_drops_the_first() {
    let environment = TestEnvironment::new().await;
    let mut shop = Shop::open(&environment.redis).await;
    let yesterday = days_before(shop.today, 1);
    shop.rebuild(yesterday).await;
    shop.sell([(0, 1, 5), (1, 2, 4), (3, 3, 3), (7, 4, 2)]).await;
    shop.expect_exact("after midnight, before the job").await;
    let shown = async |window| sales::whole_window(&environment.redis, window).await.expect("redis");
    assert_eq!(shown(1).await, Scores::from([(product(2), 4)]), "a whole day");
    let mut build = shop.begin(shop.today).await;
    // A sale of the new day, and events of the old day that come late.
    shop.sell([(0, 1, 1), (1, 2, -4), (3, 3, 1), (7, 4, 1)]).await;
    shop.expect_exact("while the job runs").await;
    read_days(&mut build).await;
    assert_eq!(build.step(10).await.expect("redis"), BuildStep::Shown);
    assert_eq!(shown(1).await, Scores::from([(product(1), 6)]));
    assert_eq!(shown(3).await, Scores::from([(product(1), 6)]), "the first day fell out");
    assert_eq!(shown(7).await, Scores::from([(product(1), 6), (product(3), 4)]));
    shop.expect_exact("after the job").await;
    environment.end().await;
}

/// I9 and I10: any order of sales, cancellations, builds, their days and steps, crashes, midnights and rebuilds. After
/// each of them the windows are what their days come to.
#[tokio::test]
async fn i9_windows_are_the_sums_of_their_days_after_any_steps() {
    let mut shown = 0;
    for _ in 0..8 {
        let environment = TestEnvironment::new().await;
        let mut shop = Shop::open(&environment.redis).await;
        let tomorrow = days_after(shop.today, 1);
        let below = |bound: u16| u64::from(random_below(bound));
        let (mut trace, mut builds) = (String::new(), Vec::new());
        for _ in 0..120 {
            let choice = random_below(20);
            trace = format!("{trace}{choice} ");
            let to = if random_below(4) == 0 { tomorrow } else { shop.today };
            match choice {
                0..7 => {
                    let (ago, of) = (below(9), 1 + below(8));
                    let had = shop.days.get(&days_before(shop.today, ago)).and_then(|day| day.get(&product(of)));
                    let units = if below(2) == 0 { -had.copied().unwrap_or(-1) } else { 1 };
                    shop.sell([(ago, of, units), (below(3), 1 + below(8), 1)]).await;
                }
                // Mostly one build at a time, as one that began before another is not shown.
                7..10 if builds.is_empty() || builds.len() == 1 && random_below(10) == 0 => {
                    builds.push((shop.begin(to).await, false));
                }
                7..15 => {
                    for (build, is_read) in &mut builds {
                        for _ in 0..=random_below(4) {
                            *is_read = !build.read_day().await.expect("redis");
                        }
                    }
                }
                15..18 => {
                    let mut unfinished = Vec::new();
                    for (build, is_read) in builds {
                        let limit = 1 + u32::from(random_below(8));
                        let step = if is_read { build.step(limit).await.expect("redis") } else { BuildStep::More };
                        shown += u32::from(step == BuildStep::Shown);
                        if step == BuildStep::More {
                            unfinished.push((build, is_read));
                        }
                    }
                    builds = unfinished;
                }
                18 if random_below(3) == 0 => drop(builds.pop()),
                19 if random_below(3) == 0 => shop.rebuild(to).await,
                _ => {}
            }
            shop.expect_exact(&trace).await;
        }
        assert!(matches!(shop.warm().await, WindowsBuilt::Shown { .. }), "{trace}");
        shop.expect_exact(&trace).await;
        environment.end().await;
    }
    assert!(shown > 0, "no build came to its end");
}

/// All keys of sales are in one slot of a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn i9_windows_are_counted_and_built_in_a_cluster_also_while_their_slot_moves() {
    let cluster = RedisCluster::start(2).await;
    let mut environment = TestEnvironment::new().await;
    environment.settings.redis_url = cluster.url().into();
    let redis = environment.settings.redis(2).await.expect("a cluster");
    let mut shop = Shop::open(&redis).await;
    let slot = RedisCluster::slot("{sales}");
    for round in 0..3 {
        shop.sell((1..=1_200).map(|of| (round, of, 2))).await;
        let mut build = shop.begin(shop.today).await;
        shop.sell([(0, 1, 1), (1, 2, -1)]).await;
        read_days(&mut build).await;
        let from = cluster.owner(slot).await;
        cluster.move_slot(slot, from, (from + 1) % cluster.size()).await;
        shop.sell([(0, 3, 1), (2, 4, 1)]).await;
        assert_eq!(build.step(1).await.expect("redis"), BuildStep::More);
        while build.step(100).await.expect("redis") == BuildStep::More {}
        shop.expect_exact("in a cluster").await;
        assert!(matches!(shop.warm().await, WindowsBuilt::Shown { .. }));
        shop.expect_exact("by the job").await;
    }
    redis.close().await;
    environment.end().await;
}
