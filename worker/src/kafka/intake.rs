use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use dibs_common::{
    clock,
    db::{self, Database, Refusal},
    domain::claim::Rejection,
    error::{Error, Result},
    identifiers::{ClaimId, CouponId, UserId},
    json,
    keys::Partition,
    redis::Redis,
    scripts::{self, ClaimRequest, Decision},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    Cluster,
    consumer::{Consumer, Handler, Record},
    dead_letters::bury,
};

/// The topic in which shops queue requests for coupons.
pub const REQUESTED: &str = "coupon.issue.requested";

/// Claims that one call of the script decides.
const MAX_BATCH: usize = 250;
/// Campaigns whose partitions are remembered. A partition never changes.
const REMEMBERED: usize = 10_000;
/// Rows that are not in memory take the disk a while.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest request, in bytes, and the longest id of one, in characters.
const LONGEST_REQUEST: usize = 4 * 1024;
const LONGEST_REQUEST_ID: usize = 128;

/// Takes requests for coupons in as claims.
///
/// A request's claim has an id that never changes: the request's own id where that is a UUID, else one that is made of
/// its place in Kafka. So a request that comes again is the same claim: Redis replays what it has accepted, and what was
/// issued or refused is found in the database.
pub struct ClaimIntake {
    database: Database,
    redis: Redis,
    partitions: HashMap<CouponId, Partition>,
}

/// Takes requests for coupons from Kafka.
pub type Intake = Consumer<ClaimIntake>;

impl Intake {
    /// Joins those who take requests.
    pub fn take_requests(cluster: &Cluster, database: &Database, redis: &Redis) -> Result<Self> {
        Self::join(cluster, &[REQUESTED], ClaimIntake::new(database, redis))
    }
}

/// A request, as shops write it.
#[expect(clippy::struct_field_names, reason = "so they are called there")]
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Requested {
    user_id: UserId,
    coupon_id: CouponId,
    #[serde(default)]
    request_id: Option<String>,
}

/// A request that can be read.
struct Request<'r> {
    record: &'r Record,
    user: UserId,
    coupon: CouponId,
    claim: ClaimId,
    /// What it is called in the log; empty when that is the claim's id.
    name: Bytes,
}

impl Handler for ClaimIntake {
    const NAME: &'static str = "intake";

    async fn handle(&mut self, records: &[Record]) -> Result<()> {
        let mut requests = Vec::with_capacity(records.len());
        for record in records {
            match read(record) {
                Ok(request) => requests.push(request),
                Err(reason) => self.bury(record, &reason).await?,
            }
        }
        if requests.is_empty() {
            return Ok(());
        }
        let mut waiting = None;
        for (coupon, requests) in self.undecided(requests).await? {
            // One campaign that has to wait does not hold up the others of these.
            match self.claim(coupon, &requests).await {
                Err(error @ Error::CampaignUnavailable(_)) => waiting = Some(error),
                decided => decided?,
            }
        }
        waiting.map_or(Ok(()), Err)
    }
}

impl ClaimIntake {
    /// Claims from Redis, of campaigns that the database knows.
    pub fn new(database: &Database, redis: &Redis) -> Self {
        Self { database: database.clone(), redis: redis.clone(), partitions: HashMap::new() }
    }

    /// Requests whose claims are not decided for good yet, by campaign, each in order.
    async fn undecided<'r>(&self, requests: Vec<Request<'r>>) -> Result<Vec<(CouponId, Vec<Request<'r>>)>> {
        let ids: Vec<ClaimId> = requests.iter().map(|request| request.claim).collect();
        let mut holders = db::within_limit(PATIENCE, db::holders_of_claims(self.database.pool(), &ids)).await?;
        let decided: HashSet<ClaimId> = holders.keys().copied().collect();
        let mut by_coupon: Vec<(CouponId, Vec<Request<'r>>)> = Vec::new();
        for request in requests {
            let holder = (request.coupon, request.user);
            if *holders.entry(request.claim).or_insert(holder) != holder {
                self.bury(request.record, "its requestId is that of another user or coupon").await?;
                continue;
            }
            if decided.contains(&request.claim) {
                continue;
            }
            match by_coupon.iter_mut().find(|(coupon, _)| *coupon == request.coupon) {
                Some((_, requests)) => requests.push(request),
                None => by_coupon.push((request.coupon, vec![request])),
            }
        }
        Ok(by_coupon)
    }

    /// Decides requests for one campaign.
    async fn claim(&mut self, coupon: CouponId, requests: &[Request<'_>]) -> Result<()> {
        let Some(partition) = self.partition(coupon).await? else {
            for request in requests {
                self.bury(request.record, &Error::CouponNotFound(coupon).to_string()).await?;
            }
            return Ok(());
        };
        for requests in requests.chunks(MAX_BATCH) {
            let claims: Vec<ClaimRequest> = requests
                .iter()
                .map(|Request { user, claim, name, .. }| ClaimRequest {
                    user: *user,
                    claim: *claim,
                    request: name.clone(),
                })
                .collect();
            let codes = match scripts::claim(&self.redis, partition, coupon, "", &claims).await? {
                Some(decided) => decided.decisions.into_iter().map(refusal).collect(),
                None if self.is_over(coupon).await? => vec![Some(Rejection::CampaignClosed); requests.len()],
                None => return Err(Error::CampaignUnavailable(coupon)),
            };
            self.note(requests, &codes).await?;
        }
        Ok(())
    }

    /// Writes down who was refused, and counts.
    async fn note(&self, requests: &[Request<'_>], codes: &[Option<Rejection>]) -> Result<()> {
        let mut refusals = Vec::new();
        for (Request { claim, coupon, user, .. }, code) in requests.iter().zip(codes) {
            let outcome = code.map_or("accepted", Rejection::as_str);
            metrics::counter!("dibs_intake_claims_total", "outcome" => outcome).increment(1);
            // Who is at the limit finds the claim that was first.
            if let Some(code) = code.filter(|code| *code != Rejection::CouponAlreadyIssued) {
                refusals.push(Refusal { claim: *claim, coupon: *coupon, user: *user, code });
            }
        }
        db::within_limit(PATIENCE, db::write_refusals(self.database.pool(), &refusals, clock::now())).await
    }

    async fn partition(&mut self, coupon: CouponId) -> Result<Option<Partition>> {
        if let Some(partition) = self.partitions.get(&coupon) {
            return Ok(Some(*partition));
        }
        let Some(campaign) = db::within(db::campaign(self.database.pool(), coupon)).await? else { return Ok(None) };
        if self.partitions.len() >= REMEMBERED {
            self.partitions.clear();
        }
        self.partitions.insert(coupon, campaign.partition);
        Ok(Some(campaign.partition))
    }

    async fn is_over(&self, coupon: CouponId) -> Result<bool> {
        let campaign = db::within(db::campaign(self.database.pool(), coupon)).await?;
        Ok(campaign.is_none_or(|campaign| clock::now() >= campaign.terms.closes_at))
    }

    async fn bury(&self, record: &Record, reason: &str) -> Result<()> {
        bury(&self.database, REQUESTED, REQUESTED, record, reason).await
    }
}

fn read(record: &Record) -> Result<Request<'_>, String> {
    if !record.is_whole || record.value.len() > LONGEST_REQUEST {
        return Err(format!("it is longer than {LONGEST_REQUEST} bytes"));
    }
    let mut reader = serde_json::Deserializer::from_slice(&record.value);
    let requested = json::object(&mut reader).and_then(|requested| reader.end().map(|()| requested));
    let Requested { user_id, coupon_id, request_id } = requested.map_err(|error| error.to_string())?;
    if let Some(id) = &request_id
        && (id.is_empty() || id.len() > LONGEST_REQUEST_ID || !id.chars().all(|c| c.is_ascii_graphic()))
    {
        return Err(format!("requestId: expected 1 to {LONGEST_REQUEST_ID} visible ASCII characters"));
    }
    let own = request_id.as_deref().and_then(|id| Uuid::parse_str(id).ok()).filter(|id| !id.is_nil());
    let name = if own.is_some() { String::new() } else { request_id.unwrap_or_else(|| record.place()) };
    let claim = ClaimId(own.unwrap_or_else(|| id_of_place(record)));
    Ok(Request { record, user: user_id, coupon: coupon_id, claim, name: name.into() })
}

/// A `UUIDv7` of a record's time whose other bits are those of a digest of its place.
fn id_of_place(record: &Record) -> Uuid {
    let mut bits = [0; 10];
    bits.copy_from_slice(&Sha256::digest(record.place())[..10]);
    uuid::Builder::from_unix_timestamp_millis(record.at.unsigned_abs(), &bits).into_uuid()
}

fn refusal(decision: Decision) -> Option<Rejection> {
    match decision {
        Decision::Accepted(_) | Decision::Replayed(_) => None,
        Decision::AlreadyClaimed(_) => Some(Rejection::CouponAlreadyIssued),
        Decision::Exhausted => Some(Rejection::CouponExhausted),
        Decision::NotOpen => Some(Rejection::CampaignNotOpen),
        Decision::Closed => Some(Rejection::CampaignClosed),
        Decision::Paused => Some(Rejection::CampaignPaused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str) -> Record {
        let topic = REQUESTED.into();
        Record { topic, partition: 3, offset: 7, at: 1_790_000_000_123, value: value.into(), is_whole: true }
    }

    fn claim_of(value: &str) -> Result<ClaimId, String> {
        read(&record(value)).map(|request| request.claim)
    }

    #[test]
    fn a_request_is_the_same_claim_whenever_it_comes() {
        let own = "019b777f-73fa-7c31-9d2e-5a0f6b8c4e17";
        let with_own = format!(r#"{{"userId": 1, "couponId": 2, "requestId": "{own}"}}"#);
        assert_eq!(claim_of(&with_own).map(|claim| claim.to_string()).as_deref(), Ok(own));
        let without = r#"{"userId": 1, "couponId": 2}"#;
        let made = claim_of(without).expect("readable");
        assert_eq!(claim_of(without), Ok(made));
        assert_eq!(claim_of(r#"{"userId": 1, "couponId": 2, "requestId": "cart-4711"}"#), Ok(made));
        assert_eq!(made.0.get_version_num(), 7);
        let elsewhere = Record { offset: 8, ..record(without) };
        assert_ne!(read(&elsewhere).map(|request| request.claim), Ok(made));
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_reason() {
        let long = format!(r#"{{"userId": 1, "couponId": 2, "requestId": "{}"}}"#, "x".repeat(129));
        let longer = " ".repeat(LONGEST_REQUEST + 1);
        for (value, reason) in [
            ("oops", "expected"),
            ("", "EOF"),
            ("[1, 2, null]", "an object"),
            (r#"{"userId": 1}"#, "couponId"),
            (r#"{"userId": 1, "couponId": 2, "color": "red"}"#, "color"),
            (r#"{"userId": 0, "couponId": 2}"#, "expected an id"),
            (r#"{"userId": 9007199254740992, "couponId": 2}"#, "expected an id"),
            (r#"{"userId": 1, "couponId": 2} more"#, "trailing"),
            (r#"{"userId": 1, "couponId": 2, "requestId": ""}"#, "requestId"),
            (&long, "requestId"),
            (&longer, "longer than 4096 bytes"),
        ] {
            let refused = claim_of(value).expect_err(value);
            assert!(refused.contains(reason), "{value}: {refused}");
        }
    }
}
