use chrono::NaiveDate;
use chrono_tz::Tz;
use dibs_common::{
    clock::Timestamp,
    domain::ranking::{LONGEST_WINDOW, Scores, WINDOWS, add, business_day, days_before, first_of},
    error::{Error, Result},
    identifiers::new_uuid,
    redis::{
        Redis, sales,
        scripts::{BuildStep, sales_build_begin, sales_build_step},
    },
};
use uuid::Uuid;

/// Products of one step, which takes Redis a few milliseconds.
const STEP_PRODUCTS: u32 = 500;
/// Steps of one build: for more products than that to change meanwhile, each would have to sell within seconds.
const MAX_STEPS: u32 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowsBuilt {
    /// With so many products in the longest.
    Shown { products: usize },
    /// A newer build or a rebuild of the days began meanwhile, and shows its own.
    Superseded,
    /// Redis does not know up to where it has counted.
    Lost,
}

/// Builds the windows that the API reads: the sales of the last 1, 3 and 7 business days up to `now`. Sales that are
/// counted meanwhile are in them. Whatever it returns but [`WindowsBuilt::Shown`], it changed nothing.
///
/// The sums are calculated here, a page at a time: Redis would serve no other client for six seconds while it sums
/// seven days of a million products, and coupon campaigns open on the hour, when this runs.
pub async fn warm(redis: &Redis, zone: Tz, now: Timestamp) -> Result<WindowsBuilt> {
    let Some(mut build) = WindowBuild::begin(redis, business_day(now, zone)).await? else {
        return Ok(WindowsBuilt::Lost);
    };
    let outcome = build.finish().await;
    if matches!(outcome, Ok(WindowsBuilt::Shown { .. })) {
        return outcome;
    }
    let deleted = build.windows.delete().await;
    outcome.and_then(|outcome| deleted.map(|()| outcome))
}

/// A build of the windows, step by step.
pub struct WindowBuild<'r> {
    windows: StagedWindows<'r>,
    /// The next to read; the days are read from the last to the first.
    next_day: NaiveDate,
}

impl<'r> WindowBuild<'r> {
    /// Begins a build of the windows up to `to`. From now on Redis notes which products change. None when it does not
    /// know up to where it has counted.
    pub async fn begin(redis: &'r Redis, to: NaiveDate) -> Result<Option<Self>> {
        let windows = StagedWindows::new(redis, to);
        let has_begun = sales_build_begin(redis, windows.id).await?;
        Ok(has_begun.then_some(Self { windows, next_day: to }))
    }

    async fn finish(&mut self) -> Result<WindowsBuilt> {
        while self.read_day().await? {}
        for _ in 0..MAX_STEPS {
            match self.step(STEP_PRODUCTS).await? {
                BuildStep::More => {}
                BuildStep::Shown => return Ok(WindowsBuilt::Shown { products: self.windows.sold.len() }),
                BuildStep::Superseded => return Ok(WindowsBuilt::Superseded),
                BuildStep::Lost => return Ok(WindowsBuilt::Lost),
            }
        }
        Err(Error::internal("products changed faster than the windows could be brought up to date"))
    }

    /// Reads the next day, and stages a window once its days are read. False when there was no day left.
    pub async fn read_day(&mut self) -> Result<bool> {
        let StagedWindows { redis, to, .. } = self.windows;
        if self.next_day < first_of(to, LONGEST_WINDOW) {
            return Ok(false);
        }
        let scores = sales::daily(redis, self.next_day).await?;
        self.windows.add(self.next_day, scores).await?;
        self.next_day = days_before(self.next_day, 1);
        Ok(true)
    }

    /// Brings the staged windows up to date with at most `products` that changed since the beginning, and shows them
    /// when no more are left. Every day must have been read.
    pub async fn step(&self, products: u32) -> Result<BuildStep> {
        sales_build_step(self.windows.redis, self.windows.id, self.windows.to, products).await
    }
}

/// Windows under staged keys, until a script shows them.
pub(super) struct StagedWindows<'r> {
    pub redis: &'r Redis,
    /// Of the staged keys.
    pub id: Uuid,
    /// The last day of each window.
    pub to: NaiveDate,
    /// Of the days so far.
    sold: Scores,
}

impl<'r> StagedWindows<'r> {
    pub fn new(redis: &'r Redis, to: NaiveDate) -> Self {
        Self { redis, id: new_uuid(), to, sold: Scores::new() }
    }

    /// Adds a day, the latest first, and stages the window that begins with it. Days of no window change nothing.
    pub async fn add(&mut self, day: NaiveDate, scores: Scores) -> Result<()> {
        if !(first_of(self.to, LONGEST_WINDOW)..=self.to).contains(&day) {
            return Ok(());
        }
        for (product, units) in scores {
            add(&mut self.sold, product, units);
        }
        let Some(window) = WINDOWS.into_iter().find(|days| first_of(self.to, *days) == day) else { return Ok(()) };
        let staged = self.redis.keys.staged(&self.redis.keys.sales_window(window), self.id);
        // Negative, so that the ascending order of Redis puts the best first, and of two that sold the same the lower
        // id.
        sales::write_staged(self.redis, &staged, &self.sold, -1).await
    }

    /// Deletes what was staged and not shown.
    pub async fn delete(&self) -> Result<()> {
        let windows = WINDOWS.iter().map(|days| self.redis.keys.sales_window(*days));
        sales::delete_staged(self.redis, windows, self.id).await
    }
}
