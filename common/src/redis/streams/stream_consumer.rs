use std::{
    collections::{HashMap, HashSet},
    marker::PhantomData,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::Client,
    error::Error as RedisError,
    interfaces::StreamsInterface,
    types::{
        Value,
        streams::{XID, XPendingArgs},
    },
};

use super::{ClaimEntry, Malformed};
use crate::{
    clock::{Timestamp, from_millis},
    domain::{claim::Claim, trace_context::TraceContext},
    error::Result,
    identifiers::{CouponId, Partition},
    redis::{BLOCK, Redis, blocking_reader::BlockingReader, keys::Keys, redis_error, scripts},
};

pub trait Entry: Sized + Send + Sync {
    const GROUP: &'static str;
    /// The stream's key ends with it.
    const NAME: &'static str;
    /// The field `type` of entries that this version writes.
    const TYPE: &'static str;
    /// The source of its dead letters.
    const SOURCE: &'static str;

    fn stream(keys: &Keys, partition: Partition) -> String;

    /// The id of the coupon or order that it is about.
    fn aggregate_id(&self) -> String;

    /// The sampled requests that it comes from.
    fn traces(&self) -> impl Iterator<Item = TraceContext>;

    /// Reads an entry's fields, of any version that a deployed process may have written.
    fn read(fields: &HashMap<String, Bytes>) -> Result<Self, Malformed>;
}

/// How many entries are on the stream of a partition, those in flight included.
pub async fn len<E: Entry>(redis: &Redis, partition: Partition) -> Result<u64> {
    let key = E::stream(&redis.keys, partition);
    redis.run(&key, async |client| client.xlen(&key).await).await
}

#[derive(Clone, Debug)]
pub struct Delivery<E> {
    /// The entry's id on the stream.
    pub id: String,
    /// How often it was handed to a consumer, this time included.
    pub attempts: u64,
    pub entry: Result<E, Malformed>,
}

/// The stream of one partition, as one consumer of its group sees it.
pub struct StreamConsumer<E> {
    redis: Redis,
    reader: BlockingReader,
    pub partition: Partition,
    key: String,
    consumer: String,
    /// Entries that this consumer works on: it does not reclaim these.
    in_flight: Mutex<HashSet<String>>,
    entries: PhantomData<fn() -> E>,
}

impl<E: Entry> StreamConsumer<E> {
    /// Opens the stream for the consumer of that name, and makes the consumer group if it is not there.
    pub async fn open(redis: &Redis, partition: Partition, consumer: String) -> Result<Self> {
        let key = E::stream(&redis.keys, partition);
        let reader = redis.reader(&key).await?;
        let stream = Self {
            redis: redis.clone(),
            reader,
            partition,
            key,
            consumer,
            in_flight: Mutex::default(),
            entries: PhantomData,
        };
        stream.make_group().await?;
        Ok(stream)
    }

    /// Makes the consumer group, from the first entry on; also when Redis has lost it.
    async fn make_group(&self) -> Result<()> {
        // From 0 and not from `$`: entries that were appended before there was a group, or since Redis lost it, are
        // read as well.
        let create = async |client: Client| client.xgroup_create::<(), _, _, _>(&self.key, E::GROUP, "0", true).await;
        match self.redis.try_run(&self.key, create).await {
            Err(error) if !error.details().starts_with("BUSYGROUP") => Err(redis_error(error)),
            _ => Ok(()),
        }
    }

    /// Waits up to [`BLOCK`] for entries that no consumer has seen; at most `count`, possibly none.
    pub async fn read(&self, count: u64) -> Result<Vec<Delivery<E>>> {
        let block = u64::try_from(BLOCK.as_millis()).ok();
        let read = async |client: Client| {
            client.xreadgroup(E::GROUP, &*self.consumer, Some(count), block, false, &*self.key, XID::NewInGroup).await
        };
        let answer: Result<Value, RedisError> = self.reader.run(read).await;
        let Some(streams) = self.unless_group_is_lost(answer).await? else { return Ok(Vec::new()) };
        let entries = streams_entries(streams).unwrap_or_default();
        Ok(self.deliver(entries.into_iter().filter_map(|entry| delivery(entry, &HashMap::new())).collect()))
    }

    fn in_flight(&self) -> MutexGuard<'_, HashSet<String>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, deliveries: Vec<Delivery<E>>) -> Vec<Delivery<E>> {
        self.in_flight().extend(deliveries.iter().map(|delivery| delivery.id.clone()));
        deliveries
    }

    /// Leaves entries for later: they stay pending, and come again.
    pub fn release<'i>(&self, entries: impl IntoIterator<Item = &'i str>) {
        let mut in_flight = self.in_flight();
        for entry in entries {
            in_flight.remove(entry);
        }
    }

    /// Reclaims at most `count` entries that their consumer has had in flight for longer than `idle`, and which this
    /// one does not work on right now.
    pub async fn reclaim(&self, idle: Duration, count: u64) -> Result<Vec<Delivery<E>>> {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        // XPENDING and XCLAIM, and not XAUTOCLAIM: that would also take what this consumer has in flight, and does
        // not say how often an entry was delivered.
        let list = async |client: Client| {
            let waiting = XPendingArgs {
                idle: Some(idle),
                start: Some("-".into()),
                end: Some("+".into()),
                count: Some(count),
                consumer: None,
            };
            client.xpending(&self.key, E::GROUP, waiting).await
        };
        let answer: Result<Value, RedisError> = self.redis.try_run(&self.key, list).await;
        let Some(pending) = self.unless_group_is_lost(answer).await? else { return Ok(Vec::new()) };
        let mut pending: Vec<(String, String, u64, u64)> = pending.convert().map_err(redis_error)?;
        {
            let in_flight = self.in_flight();
            pending.retain(|(id, ..)| !in_flight.contains(id));
        }
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        // XPENDING counts the deliveries before this one.
        let attempts = pending.iter().map(|(id, _, _, deliveries)| (id.clone(), deliveries + 1)).collect();
        let ids: Vec<XID> = pending.into_iter().map(|(id, ..)| XID::Manual(id.into())).collect();
        // With the idle time once more: another consumer may have been faster since the list.
        let claim = async |client: Client| {
            let (key, consumer) = (&self.key, &*self.consumer);
            client.xclaim(key, E::GROUP, consumer, idle, ids.clone(), None, None, None, false, false).await
        };
        let entries: Value = self.redis.run(&self.key, claim).await?;
        Ok(self.deliver(entries.into_array().into_iter().filter_map(|entry| delivery(entry, &attempts)).collect()))
    }

    /// Resets the idle time of everything in flight, so that no other consumer reclaims it. What another consumer has
    /// reclaimed already stays there. Returns how many entries are still pending here.
    pub async fn refresh(&self) -> Result<u64> {
        // Each entry costs a look into the pending list. A chunk keeps Redis for about a millisecond.
        const ENTRIES_PER_CALL: usize = 500;
        let in_flight: Vec<String> = self.in_flight().iter().cloned().collect();
        let mut refreshed = 0;
        for entries in in_flight.chunks(ENTRIES_PER_CALL) {
            refreshed += scripts::refresh(&self.redis, self.key.clone(), E::GROUP, &self.consumer, entries).await?;
        }
        Ok(refreshed)
    }

    /// Ends entries whose outcome is durable.
    pub async fn acknowledge(&self, entries: &[String]) -> Result<u64> {
        let removed = scripts::acknowledge(&self.redis, self.key.clone(), E::GROUP, entries).await?;
        self.release(entries.iter().map(String::as_str));
        Ok(removed)
    }

    /// Removes consumers of the group that have nothing pending and did not read for `min_idle`, and returns their
    /// number. One that still runs joins again with its next read.
    pub async fn remove_idle_consumers(&self, min_idle: Duration) -> Result<u64> {
        scripts::remove_idle_consumers(&self.redis, self.key.clone(), E::GROUP, min_idle).await
    }

    /// The fields of an entry; none when it is no longer on the stream.
    pub async fn fields(&self, id: &str) -> Result<Option<HashMap<String, Bytes>>> {
        let read = async |client: Client| client.xrange(&self.key, id, id, None).await;
        let entries: Value = self.redis.run(&self.key, read).await?;
        let Some(fields) = entries.into_array().into_iter().next().and_then(|entry| entry.into_array().pop()) else {
            return Ok(None);
        };
        fields.convert().map(Some).map_err(redis_error)
    }

    /// How many entries are on the stream, those in flight included.
    pub async fn len(&self) -> Result<u64> {
        len::<E>(&self.redis, self.partition).await
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// Leaves the group, unless something is still in this consumer's hands, and ends the reader's connection.
    pub async fn close(&self) {
        // Redis deletes a consumer together with its pending entries: no other consumer could reclaim them.
        let list = async |client: Client| client.xpending(&self.key, E::GROUP, ("-", "+", 1, &*self.consumer)).await;
        let in_flight: Result<Value> = self.redis.run(&self.key, list).await;
        if in_flight.is_ok_and(|in_flight| in_flight.into_array().is_empty()) {
            let leave = async |client: Client| client.xgroup_delconsumer(&self.key, E::GROUP, &*self.consumer).await;
            let left: Result<u64> = self.redis.run(&self.key, leave).await;
            tracing::debug!(consumer = self.consumer, ?left, "consumer deleted");
        }
        self.reader.close().await;
    }

    /// The answer, or none after making the group again when Redis has lost it.
    async fn unless_group_is_lost(&self, answer: Result<Value, RedisError>) -> Result<Option<Value>> {
        match answer {
            Ok(Value::Null) => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(error) if error.details().starts_with("NOGROUP") => {
                tracing::warn!(stream = self.key, "consumer group missing; re-creating it");
                self.make_group().await.map(|()| None)
            }
            // The stream went to another node of the cluster during a blocking read.
            Err(error) if error.details().starts_with("UNBLOCKED") => Ok(None),
            Err(error) => Err(redis_error(error)),
        }
    }
}

impl StreamConsumer<ClaimEntry> {
    /// When the oldest entry on the stream of a partition was appended, by the clock of Redis; none when it is empty.
    pub async fn oldest(redis: &Redis, partition: Partition) -> Result<Option<Timestamp>> {
        let key = redis.keys.claim_stream(partition);
        let first = async |client: Client| client.xrange(&key, "-", "+", Some(1)).await;
        let first: Value = redis.run(&key, first).await?;
        let entry: Option<Delivery<ClaimEntry>> =
            first.into_array().into_iter().find_map(|entry| delivery(entry, &HashMap::new()));
        // An id is the time in milliseconds, a dash, and a number.
        Ok(entry.and_then(|entry| entry.id.split('-').next()?.parse().ok()).map(from_millis))
    }

    /// Every claim on `coupon` that is on the stream: accepted, and perhaps without an outcome.
    pub async fn unanswered(redis: &Redis, partition: Partition, coupon: CouponId) -> Result<Vec<Claim>> {
        let mut claims = Vec::new();
        Self::visit_unanswered(redis, partition, coupon, |claim| claims.push(claim)).await?;
        Ok(claims)
    }

    /// The same, one claim after the other: a stream may hold more than fits in memory.
    pub async fn visit_unanswered(
        redis: &Redis,
        partition: Partition,
        coupon: CouponId,
        mut visit: impl FnMut(Claim),
    ) -> Result<()> {
        // An entry has up to 250 claims, about 11 kB: a page takes Redis about a millisecond.
        const PAGE: u64 = 200;
        let (key, mut from) = (redis.keys.claim_stream(partition), "-".to_owned());
        loop {
            let read = async |client: Client| client.xrange(&key, from.as_str(), "+", Some(PAGE)).await;
            let page: Value = redis.run(&key, read).await?;
            let page: Vec<Delivery<ClaimEntry>> =
                page.into_array().into_iter().filter_map(|entry| delivery(entry, &HashMap::new())).collect();
            let Some(last) = page.last() else { return Ok(()) };
            // The parenthesis leaves out the entry itself.
            from = format!("({}", last.id);
            let entries = page.into_iter().filter_map(|delivery| delivery.entry.ok());
            entries.flat_map(|entry| entry.claims).filter(|claim| claim.coupon == coupon).for_each(&mut visit);
        }
    }
}

/// Appends an entry of these fields again, as a redrive does. Unlike a request of a client, it is not refused while the
/// stream is long.
pub async fn append<E: Entry>(
    redis: &Redis,
    partition: Partition,
    fields: impl IntoIterator<Item = (String, Bytes)>,
) -> Result<()> {
    let fields: Vec<(String, Value)> = fields.into_iter().map(|(name, value)| (name, Value::Bytes(value))).collect();
    let key = E::stream(&redis.keys, partition);
    let add = async |client: Client| client.xadd::<(), _, _, _, _>(&key, false, None::<()>, "*", fields.clone()).await;
    redis.run(&key, add).await
}

/// The entries of the one stream that was read: `[[key, entries]]`, or `{key: entries}` from RESP3.
fn streams_entries(streams: Value) -> Option<Vec<Value>> {
    let of_stream = match streams {
        Value::Array(streams) => streams.into_iter().next()?.into_array().into_iter().nth(1)?,
        Value::Map(streams) => streams.inner().into_values().next()?,
        _ => return None,
    };
    Some(of_stream.into_array())
}

/// An entry is `[id, [name, value, ..]]`; one that was deleted meanwhile is none.
fn delivery<E: Entry>(entry: Value, attempts: &HashMap<String, u64>) -> Option<Delivery<E>> {
    let mut parts = entry.into_array().into_iter();
    let id = parts.next()?.into_string()?;
    let fields = parts.next().filter(|fields| !fields.is_null())?;
    let fields: Result<HashMap<String, Bytes>, RedisError> = fields.convert();
    let entry = match fields {
        Ok(fields) => E::read(&fields),
        Err(error) => Err(Malformed(format!("its fields cannot be read: {error}"))),
    };
    let attempts = attempts.get(&id).copied().unwrap_or(1);
    Some(Delivery { id, attempts, entry })
}
