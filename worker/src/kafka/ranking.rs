use std::time::Duration;

use chrono_tz::Tz;
use dibs_common::{
    clock,
    db::{self, Database},
    domain::ranking::{EVENTS, SoldOrder, can_be_paid_at, effects},
    error::{Error, Result},
    identifiers::MAX_ID,
    redis::{Redis, SalesBatch, SalesCounted, SalesCounter, SalesMessage, sales, split_at_gaps},
};
use serde::Deserialize;

use super::{
    Cluster, KAFKA,
    consumer::{Consumer, Handler, Record},
    dead_letters::bury,
};
use crate::ranking::{RANKING, rebuild_under_lock, warm};

/// How often, and how far apart, one who cannot count looks whether another has made the days anew.
const LOOKS: u32 = 50;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Counts sales from Kafka, each event once, however often it comes, and makes the days anew from the orders when Redis
/// has lost them.
pub struct RankingHandler {
    database: Database,
    redis: Redis,
    zone: Tz,
    has_begun: bool,
    counter: SalesCounter,
    /// The highest sequence that an event is known to have.
    last_sequence: u64,
}

/// Takes paid and cancelled orders from Kafka.
pub type RankingConsumer = Consumer<RankingHandler>;

impl RankingConsumer {
    /// Joins those who count.
    pub fn count_sales(cluster: &Cluster, database: &Database, redis: &Redis, zone: Tz) -> Result<Self> {
        Self::join(cluster, &EVENTS, RankingHandler::new(database, redis, zone))
    }
}

/// What matters of a message here.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    sequence: u64,
    data: SoldOrder,
}

impl Handler for RankingHandler {
    const NAME: &'static str = RANKING;

    async fn handle(&mut self, records: &[Record]) -> Result<()> {
        if !self.has_begun {
            self.begin().await?;
            self.has_begun = true;
        }
        let mut messages = Vec::with_capacity(records.len());
        for record in records {
            messages.push(self.message(record).await?);
        }
        for batch in split_at_gaps(&messages) {
            self.count(batch).await?;
        }
        Ok(())
    }
}

impl RankingHandler {
    /// Counts in Redis, on business days of `zone`.
    pub fn new(database: &Database, redis: &Redis, zone: Tz) -> Self {
        let counter = SalesCounter::new(redis, zone);
        Self { database: database.clone(), redis: redis.clone(), zone, has_begun: false, counter, last_sequence: 0 }
    }

    /// What was counted by the relay until now may end before what Kafka was told begins. So the days are made anew
    /// when nothing was counted from Kafka yet.
    async fn begin(&mut self) -> Result<()> {
        if sales::is_counted_from_kafka(&self.redis).await? {
            return Ok(());
        }
        for _ in 0..LOOKS {
            if self.rebuild().await? {
                return Ok(());
            }
        }
        Err(Error::internal("another worker feeds the ranking from the outbox; is its RANKING_SOURCE another?"))
    }

    /// Counts messages that follow on each other.
    async fn count(&mut self, messages: &[SalesMessage]) -> Result<()> {
        for _ in 0..LOOKS {
            if self.counter.count(SalesBatch::Kafka(messages)).await? == SalesCounted::Counted {
                return Ok(());
            }
            tracing::warn!("redis has not counted all sales; days are made anew");
            self.rebuild().await?;
        }
        Err(Error::internal("the days cannot be made anew: another process is at it"))
    }

    /// Makes the days anew from the orders, unless another process is at it; whether it did.
    async fn rebuild(&mut self) -> Result<bool> {
        let now = clock::now();
        // Whatever follows on what the days are made of is told to Kafka.
        db::within(db::outbox::register_sink(self.database.pool(), KAFKA, now)).await?;
        let Some(mut lock) = self.database.try_lease(&format!("sink {RANKING}")).await? else {
            tokio::time::sleep(LOOK_EVERY).await;
            return Ok(false);
        };
        let made = rebuild_under_lock(&self.redis, &mut lock, self.zone, now).await;
        lock.release().await.and(made)?;
        self.counter.reset();
        warm(&self.redis, self.zone, now).await?;
        Ok(true)
    }

    /// What a record tells. One that cannot be read tells nothing, and is a dead letter.
    async fn message(&mut self, record: &Record) -> Result<SalesMessage> {
        let mut told = read(record);
        if let Ok(Told { sequence, .. }) = &told
            && !self.is_given(*sequence).await?
        {
            told = Err(format!("its sequence is {sequence}, which no event has: the last is {}", self.last_sequence));
        }
        let (sequence, effects) = match told {
            Ok(Told { kind, sequence, data }) => (sequence, effects(&kind, &data, self.zone)),
            Err(reason) => {
                bury(&self.database, RANKING, kind_of(record), record, &reason).await?;
                (0, Vec::new())
            }
        };
        let offset = u64::try_from(record.offset).map_err(Error::internal)?;
        Ok(SalesMessage { source: record.source(), offset, sequence, effects })
    }

    /// Whether an event has this sequence. One that none has yet would let all that really follow count as known.
    async fn is_given(&mut self, sequence: u64) -> Result<bool> {
        if sequence > self.last_sequence {
            let progress = db::within(async {
                let mut connection = self.database.pool().acquire().await?;
                db::outbox::find_sink_progress(&mut connection, KAFKA).await
            });
            let progress = progress.await?.ok_or_else(|| Error::internal("the sink kafka is not known yet"))?;
            self.last_sequence = progress.last_sequence;
        }
        Ok(sequence <= self.last_sequence)
    }
}

/// What its topic is for.
fn kind_of(record: &Record) -> &'static str {
    EVENTS.into_iter().find(|kind| record.topic.ends_with(kind)).unwrap_or_default()
}

fn read(record: &Record) -> Result<Told, String> {
    if !record.is_whole() {
        return Err("it is too long".into());
    }
    let told: Told = serde_json::from_slice(&record.value).map_err(|error| error.to_string())?;
    if !EVENTS.contains(&told.kind.as_str()) {
        return Err(format!("its type is {:?}, expected one of {EVENTS:?}", told.kind));
    }
    if !(1..=MAX_ID).contains(&told.sequence) {
        return Err(format!("its sequence is {}, expected 1 to {MAX_ID}", told.sequence));
    }
    if let Some(at) = told.data.paid_at.filter(|at| !can_be_paid_at(*at)) {
        return Err(format!("its paidAt is {at:?}, expected a time from 1970 to 9999"));
    }
    Ok(told)
}
