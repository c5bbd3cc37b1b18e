//! The best sellers, in the memory of the process. They are read each second from the windows that the worker counts in
//! Redis, or from the tables while Redis is down or has none. While neither answers, the last reading is served; it
//! says how old it is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use chrono::NaiveDate;
use chrono_tz::Tz;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database},
    domain::{
        product::{Product, ProductStatus},
        ranking::{MAX_RANKED_PRODUCTS, WINDOWS, business_day, first_of},
    },
    error::{Dependency, Error, Result},
    identifiers::ProductId,
    redis::{Redis, sales},
    retry,
    supervisor::{Lifetime, Supervisor, Task},
};
use futures::FutureExt as _;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// How long a request waits for the first reading.
const FIRST_READING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the query that adds up the tables may take.
const STORED_RANKING_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a ranking was read, and as of when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankingSource {
    /// The window of this last day, as it changed last at this time.
    Redis(NaiveDate, Timestamp),
    /// The tables, of which this is the last day, written at this time.
    Tables(NaiveDate, Timestamp),
    /// Nothing is counted yet; today would be the last day.
    Empty(NaiveDate),
}

impl RankingSource {
    /// The last day that is counted.
    pub const fn to(self) -> NaiveDate {
        match self {
            Self::Redis(to, _) | Self::Tables(to, _) | Self::Empty(to) => to,
        }
    }

    /// When it was written.
    pub const fn updated_at(self) -> Option<Timestamp> {
        match self {
            Self::Redis(_, at) | Self::Tables(_, at) => Some(at),
            Self::Empty(_) => None,
        }
    }
}

/// What sold best in a number of days.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// How many days, the last included.
    pub days: u8,
    /// Where it was read.
    pub source: RankingSource,
    /// Products and their units, the best first.
    pub sold: Arc<Vec<(ProductId, i64)>>,
    /// The same as they are shown, [`BestSeller`]s in JSON: written once a second, not for every reader.
    pub shown: Arc<Vec<Box<RawValue>>>,
}

/// A product that sold well.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BestSeller<'p> {
    /// 1 for what sold best; of two that sold the same, the lower id is first.
    rank: u64,
    product_id: ProductId,
    name: &'p str,
    /// Won for one.
    price: i64,
    status: ProductStatus,
    /// Units of orders paid in these days, and not cancelled since.
    sold_quantity: i64,
}

/// Those that the shop still knows.
fn show(
    sold: &[(ProductId, i64)],
    products: &HashMap<ProductId, Product>,
) -> Result<Vec<Box<RawValue>>, serde_json::Error> {
    let mut shown = Vec::with_capacity(sold.len());
    for (rank, (product, units)) in (1..).zip(sold) {
        let Some(Product { name, price, status, .. }) = products.get(product) else { continue };
        let (product_id, price, status, sold_quantity) = (*product, *price, *status, *units);
        shown.push(to_raw_value(&BestSeller { rank, product_id, name, price, status, sold_quantity })?);
    }
    Ok(shown)
}

impl Ranking {
    /// The first day that is counted.
    pub fn from(&self) -> NaiveDate {
        first_of(self.source.to(), self.days)
    }
}

type RankingsByDays = BTreeMap<u8, Ranking>;

pub struct Rankings {
    loaded: watch::Receiver<Arc<RankingsByDays>>,
}

/// Where rankings are read from.
#[derive(Clone)]
struct Reader {
    database: Database,
    redis: Redis,
    zone: Tz,
}

impl Rankings {
    /// Begins to read, until the process stops.
    pub fn start(database: &Database, redis: &Redis, zone: Tz, supervisor: &Supervisor) -> Self {
        let (tx, loaded) = watch::channel(Arc::default());
        let reader = Reader { database: database.clone(), redis: redis.clone(), zone };
        let stopping = supervisor.stopping.clone();
        supervisor.spawn(Task::new("rankings_refresh", Lifetime::UntilStopping, move || {
            reader.clone().run(tx.clone(), stopping.clone()).map(Ok)
        }));
        Self { loaded }
    }

    /// The ranking of so many days, as it was read last.
    pub async fn of(&self, days: u8) -> Result<Ranking> {
        // Nearly always: only the first requests of a process wait for a reading.
        if let Some(ranking) = self.loaded.borrow().get(&days) {
            return Ok(ranking.clone());
        }
        let mut loaded = self.loaded.clone();
        let reading = timeout(FIRST_READING_TIMEOUT, loaded.wait_for(|loaded| loaded.contains_key(&days))).await;
        let reading = reading.map_err(|elapsed| Error::unavailable(Dependency::MySql, elapsed))?;
        let loaded = reading.map_err(|ended| Error::unavailable(Dependency::MySql, ended))?;
        loaded.get(&days).cloned().ok_or_else(|| Error::internal("a loaded ranking is missing"))
    }
}

impl Reader {
    async fn run(self, tx: watch::Sender<Arc<RankingsByDays>>, stopping: CancellationToken) {
        let mut rounds = retry::every(REFRESH_INTERVAL, &stopping);
        while rounds.next().await {
            // Cloned, as the borrow holds a lock that every reader of the ranking takes.
            let before = Arc::clone(&tx.borrow());
            match self.read_all(&before).await {
                Ok(loaded) => drop(tx.send_replace(Arc::new(loaded))),
                Err(error) => tracing::warn!(cause = error.chain(), "rankings not refreshed; retrying"),
            }
        }
    }

    async fn read_all(&self, before: &RankingsByDays) -> Result<RankingsByDays> {
        let mut read = BTreeMap::new();
        for days in WINDOWS {
            read.insert(days, self.read(days, before.get(&days)).await?);
        }
        let listed = read.values().flat_map(|(_, sold)| sold.iter().map(|(product, _)| *product));
        let listed: std::collections::BTreeSet<ProductId> = listed.collect();
        // Read again although the ranking is the same: prices and names change more often than ranks.
        let products = db::within(db::products::list_by_ids(&self.database.pool(), listed)).await?;
        let products: HashMap<ProductId, Product> = products.into_iter().map(|product| (product.id, product)).collect();
        let mut rankings = RankingsByDays::new();
        for (days, (source, sold)) in read {
            let shown = Arc::new(show(&sold, &products).map_err(Error::internal)?);
            rankings.insert(days, Ranking { days, source, sold, shown });
        }
        Ok(rankings)
    }

    /// Reads what sold, unless it is still what was read before.
    async fn read(&self, days: u8, before: Option<&Ranking>) -> Result<(RankingSource, Arc<Vec<(ProductId, i64)>>)> {
        match self.read_redis(days, before).await {
            Ok(Some(read)) => return Ok(read),
            Ok(None) => {}
            Err(error) => tracing::debug!(cause = error.chain(), "ranking not read from redis; reading the tables"),
        }
        let persisted = db::within(db::best_sellers::find_last_day(&self.database.pool())).await?;
        let Some((to, at)) = persisted else {
            return Ok((RankingSource::Empty(business_day(clock::now(), self.zone)), Arc::default()));
        };
        let source = RankingSource::Tables(to, at);
        if let Some(same) = before.filter(|before| before.source == source) {
            return Ok((source, Arc::clone(&same.sold)));
        }
        let sold =
            db::within_limit(STORED_RANKING_TIMEOUT, db::best_sellers::list(&self.database.pool(), to, days)).await?;
        Ok((source, Arc::new(sold)))
    }

    async fn read_redis(
        &self,
        days: u8,
        before: Option<&Ranking>,
    ) -> Result<Option<(RankingSource, Arc<Vec<(ProductId, i64)>>)>> {
        let Some(window) = sales::window_info(&self.redis, days).await? else { return Ok(None) };
        let source = RankingSource::Redis(window.to, window.updated_at);
        if let Some(same) = before.filter(|before| before.source == source) {
            return Ok(Some((source, Arc::clone(&same.sold))));
        }
        // The window may have been replaced since its info was read. Then the next reading, a second later, corrects
        // it.
        let sold = sales::window(&self.redis, days, MAX_RANKED_PRODUCTS).await?;
        Ok(Some((source, Arc::new(sold))))
    }
}
