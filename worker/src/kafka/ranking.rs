use std::time::Duration;

use chrono_tz::Tz;
use dibs_common::{
    clock,
    db::{self, Database, epochs::Epochs},
    domain::{
        event::Epoch,
        ranking::{EVENTS, SoldOrder, is_plausible, sales_changes},
    },
    error::{Error, Result},
    identifiers::MAX_ID,
    redis::{Redis, SalesBatch, SalesCounted, SalesCounter, SalesMessage, sales, split_at_gaps},
    retry::{Backoff, RetryPolicy},
};
use serde::Deserialize;

use super::{
    Cluster, KAFKA,
    consumer::{Consumer, Handler, Record},
    dead_letters::dead_letter,
};
use crate::ranking::{RANKING, rebuild_under_lease};

/// How long another process may hold the lease of the ranking before the records are retried.
const LEASE_WAIT: RetryPolicy = RetryPolicy::constant(Duration::from_millis(200)).within(Duration::from_secs(10));

/// Counts sales from Kafka, each event once, however often it is delivered, and rebuilds the days from the orders when
/// Redis has lost them.
pub struct RankingHandler {
    database: Database,
    redis: Redis,
    zone: Tz,
    has_begun: bool,
    counter: SalesCounter,
    /// As of the records that are counted.
    epochs: Epochs,
}

/// Consumes the events of paid and cancelled orders.
pub type RankingConsumer = Consumer<RankingHandler>;

impl RankingConsumer {
    pub fn join_ranking(cluster: &Cluster, database: &Database, redis: &Redis, zone: Tz) -> Result<Self> {
        Self::join(cluster, &EVENTS, RankingHandler::new(database, redis, zone))
    }
}

/// The parts of a message that the ranking needs.
#[derive(Deserialize)]
struct OrderMessage {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    epoch: u64,
    sequence: u64,
    data: SoldOrder,
}

impl Handler for RankingHandler {
    const NAME: &'static str = RANKING;

    async fn handle(&mut self, records: &[Record]) -> Result<()> {
        // Not in the constructor, which cannot wait: a failure here is retried as that of any batch.
        if !self.has_begun {
            self.begin().await?;
            self.has_begun = true;
        }
        // After the records were read, so that their events are known.
        self.epochs = db::within(async { db::epochs::list(&mut *self.database.pool().acquire().await?).await }).await?;
        self.counter.epoch = self.epochs.position().epoch;
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
        Self {
            database: database.clone(),
            redis: redis.clone(),
            zone,
            has_begun: false,
            counter,
            epochs: Epochs::default(),
        }
    }

    /// What the relay counted until now may end before the first event in Kafka. So the days are rebuilt when nothing
    /// was counted from Kafka yet.
    async fn begin(&mut self) -> Result<()> {
        if sales::is_counted_from_kafka(&self.redis).await? {
            return Ok(());
        }
        let mut backoff = Backoff::new(LEASE_WAIT);
        while !self.rebuild_or_wait(&mut backoff).await? {}
        Ok(())
    }

    /// Counts messages without a gap between them.
    async fn count(&mut self, messages: &[SalesMessage]) -> Result<()> {
        let mut backoff = Backoff::new(LEASE_WAIT);
        while self.counter.count(SalesBatch::Kafka(messages)).await? != SalesCounted::Counted {
            tracing::warn!("rebuilding sales counters");
            self.rebuild_or_wait(&mut backoff).await?;
        }
        Ok(())
    }

    /// Rebuilds the days, or waits while another process may be rebuilding them; whether this one did.
    async fn rebuild_or_wait(&mut self, backoff: &mut Backoff) -> Result<bool> {
        let has_rebuilt = self.rebuild().await?;
        if !has_rebuilt && !backoff.pause().await {
            return Err(Error::internal(
                "another worker holds the lease of the ranking; is its RANKING_SOURCE outbox?",
            ));
        }
        Ok(has_rebuilt)
    }

    /// Rebuilds the days from the orders, unless another process holds the lease; whether it did.
    async fn rebuild(&mut self) -> Result<bool> {
        let now = clock::now();
        // Registered before the snapshot, so that every event after it is published to Kafka.
        db::within(db::outbox::register_sink(&self.database.pool(), KAFKA, now)).await?;
        let Some(lease) = self.database.try_lease(&format!("sink {RANKING}")).await? else { return Ok(false) };
        let rebuilt = rebuild_under_lease(&self.redis, &lease, self.zone, now).await;
        // Released before the result is looked at, so that a failure does not leave the other workers waiting.
        lease.release().await.and(rebuilt)?;
        // The rebuild may have set back what Redis counts, which is no loss that the counter should notice.
        self.counter.reset();
        Ok(true)
    }

    /// What a record counts. An invalid one counts nothing and is a dead letter.
    async fn message(&mut self, record: &Record) -> Result<SalesMessage> {
        let (sequence, changes) = match decode(record).and_then(|message| self.known(message)) {
            Ok(Some(OrderMessage { kind, sequence, data, .. })) => (sequence, sales_changes(&kind, &data, self.zone)),
            Ok(None) => (0, Vec::new()),
            Err(reason) => {
                dead_letter(&self.database, RANKING, kind_of(record), record, &reason).await?;
                (0, Vec::new())
            }
        };
        let offset = u64::try_from(record.offset).map_err(Error::internal)?;
        Ok(SalesMessage { source: record.source(), offset, sequence, changes })
    }

    /// The message when its event exists; none when a restore of `MySQL` has lost it. If a sequence from the future was
    /// counted, the real events up to it would count as known.
    fn known(&self, message: OrderMessage) -> Result<Option<OrderMessage>, String> {
        let (sequence, position) = (message.sequence, self.epochs.position());
        if Epoch(message.epoch) != self.epochs.of(sequence) {
            tracing::info!(sequence, epoch = message.epoch, "event was lost by a restore; not counted");
            return Ok(None);
        }
        if sequence <= position.sequence {
            return Ok(Some(message));
        }
        Err(format!("its sequence is {sequence}, which no event has: the last is {}", position.sequence))
    }
}

/// The event type of its topic.
fn kind_of(record: &Record) -> &'static str {
    EVENTS.into_iter().find(|kind| record.topic.ends_with(kind)).unwrap_or_default()
}

fn decode(record: &Record) -> Result<OrderMessage, String> {
    if !record.is_whole() {
        return Err("it is too long".into());
    }
    let message: OrderMessage = serde_json::from_slice(&record.value).map_err(|error| error.to_string())?;
    if !EVENTS.contains(&message.kind.as_str()) {
        return Err(format!("its type is {:?}, expected one of {EVENTS:?}", message.kind));
    }
    if !(1..=MAX_ID).contains(&message.sequence) {
        return Err(format!("its sequence is {}, expected 1 to {MAX_ID}", message.sequence));
    }
    if let Some(at) = message.data.paid_at.filter(|at| !is_plausible(at)) {
        return Err(format!("its paidAt is {at:?}, expected a time from 1970 to 9999"));
    }
    if let Some(day) = message.data.paid_on.filter(|day| !is_plausible(day)) {
        return Err(format!("its paidOn is {day:?}, expected a day from 1970 to 9999"));
    }
    Ok(message)
}
