use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use dibs_common::{
    clock,
    db::{self, Database, rejected_requests::RejectedRequest},
    domain::claim::ClaimRejectReason,
    error::{Error, Result},
    identifiers::{ClaimId, CouponId, Partition, UserId},
    json,
    redis::{
        Redis,
        scripts::{self, ClaimRequest, Decision},
    },
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
/// A request's claim has an id that never changes: it is made of the request's own id, its user and its coupon, or of its
/// place in Kafka where it has none. So a request that comes again is the same claim: Redis replays what it has accepted,
/// and what was issued or refused is found in the database. And an id that is given to several requests takes nothing
/// from any: for another user or coupon it is another claim.
pub struct ClaimIntake {
    database: Database,
    redis: Redis,
    partitions: HashMap<CouponId, Partition>,
    /// Claims of the records in hand that are decided and counted, while others of them have to wait.
    decided: HashSet<ClaimId>,
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
    /// What it is called in the log.
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
        if let Some(error) = waiting {
            return Err(error);
        }
        self.decided.clear();
        Ok(())
    }
}

impl ClaimIntake {
    /// Claims from Redis, of campaigns that the database knows.
    pub fn new(database: &Database, redis: &Redis) -> Self {
        let (database, redis) = (database.clone(), redis.clone());
        Self { database, redis, partitions: HashMap::new(), decided: HashSet::new() }
    }

    /// Requests whose claims are not decided for good yet, by campaign, each in order, and each once.
    async fn undecided<'r>(&self, requests: Vec<Request<'r>>) -> Result<Vec<(CouponId, Vec<Request<'r>>)>> {
        let ids: Vec<ClaimId> = requests.iter().map(|request| request.claim).collect();
        let mut decided =
            db::within_limit(PATIENCE, db::rejected_requests::list_decided(self.database.pool(), &ids)).await?;
        decided.extend(&self.decided);
        let mut by_coupon: Vec<(CouponId, Vec<Request<'r>>)> = Vec::new();
        for request in requests {
            if !decided.insert(request.claim) {
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
            let verdicts = match scripts::claim(&self.redis, partition, coupon, "", &claims).await? {
                Some(decided) => decided.decisions.into_iter().map(verdict).collect(),
                None if self.is_over(coupon).await? => {
                    vec![Verdict::Refused(ClaimRejectReason::CampaignClosed); requests.len()]
                }
                None => return Err(Error::CampaignUnavailable(coupon)),
            };
            self.note(requests, &verdicts).await?;
        }
        Ok(())
    }

    /// Writes down who was refused, and counts each claim once. Redis says only once that it has accepted a claim, so
    /// that is counted whatever happens next; a refusal when it is written.
    async fn note(&mut self, requests: &[Request<'_>], verdicts: &[Verdict]) -> Result<()> {
        let mut refusals = Vec::new();
        for (Request { claim, coupon, user, .. }, verdict) in requests.iter().zip(verdicts) {
            match verdict {
                Verdict::Accepted => count("accepted"),
                // Who is at the limit finds the claim that was first.
                Verdict::Replayed | Verdict::Refused(ClaimRejectReason::CouponAlreadyIssued) => {}
                Verdict::Refused(code) => {
                    refusals.push(RejectedRequest { claim: *claim, coupon: *coupon, user: *user, code: *code });
                }
            }
        }
        db::within_limit(PATIENCE, db::rejected_requests::insert_batch(self.database.pool(), &refusals, clock::now()))
            .await?;
        for (Request { claim, .. }, verdict) in requests.iter().zip(verdicts) {
            if let Verdict::Refused(code) = verdict {
                count(code.into_str());
            }
            self.decided.insert(*claim);
        }
        Ok(())
    }

    async fn partition(&mut self, coupon: CouponId) -> Result<Option<Partition>> {
        if let Some(partition) = self.partitions.get(&coupon) {
            return Ok(Some(*partition));
        }
        let Some(campaign) = db::within(db::campaigns::find(self.database.pool(), coupon)).await? else {
            return Ok(None);
        };
        if self.partitions.len() >= REMEMBERED {
            self.partitions.clear();
        }
        self.partitions.insert(coupon, campaign.partition);
        Ok(Some(campaign.partition))
    }

    async fn is_over(&self, coupon: CouponId) -> Result<bool> {
        let campaign = db::within(db::campaigns::find(self.database.pool(), coupon)).await?;
        Ok(campaign.is_none_or(|campaign| clock::now() >= campaign.terms.closes_at))
    }

    async fn bury(&self, record: &Record, reason: &str) -> Result<()> {
        bury(&self.database, REQUESTED, REQUESTED, record, reason).await
    }
}

fn read(record: &Record) -> Result<Request<'_>, String> {
    if !record.is_whole() || record.value.len() > LONGEST_REQUEST {
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
    let claim = match &request_id {
        Some(id) => id_of_request(id, user_id, coupon_id),
        None => ClaimId(id_of(record.at.unsigned_abs(), &record.place())),
    };
    let name = request_id.unwrap_or_else(|| record.place()).into();
    Ok(Request { record, user: user_id, coupon: coupon_id, claim, name })
}

/// The claim of a request that has an id, the same whenever and wherever it comes. So its time is that of its id, where
/// that tells one; else it has none.
fn id_of_request(id: &str, user: UserId, coupon: CouponId) -> ClaimId {
    let told = format!("{user}/{coupon}/{id}");
    let ordered = Uuid::parse_str(id).ok().filter(|id| id.get_version_num() == 7);
    ClaimId(match ordered {
        Some(id) => id_of(u64::try_from(id.as_u128() >> 80).unwrap_or_default(), &told),
        None => uuid::Builder::from_custom_bytes(digest(&told)).into_uuid(),
    })
}

/// A `UUIDv7` of a time, in ms since 1970, whose other bits are those of a digest.
fn id_of(at: u64, told: &str) -> Uuid {
    let [bits @ .., _, _, _, _, _, _] = digest(told);
    uuid::Builder::from_unix_timestamp_millis(at, &bits).into_uuid()
}

fn digest(told: &str) -> [u8; 16] {
    let mut beginning = [0; 16];
    beginning.copy_from_slice(&Sha256::digest(told)[..16]);
    beginning
}

/// What became of a claim.
#[derive(Clone, Copy)]
enum Verdict {
    Accepted,
    /// It was accepted before.
    Replayed,
    Refused(ClaimRejectReason),
}

fn verdict(decision: Decision) -> Verdict {
    Verdict::Refused(match decision {
        Decision::Accepted(_) => return Verdict::Accepted,
        Decision::Replayed(_) => return Verdict::Replayed,
        Decision::AlreadyClaimed(_) => ClaimRejectReason::CouponAlreadyIssued,
        Decision::Exhausted => ClaimRejectReason::CouponExhausted,
        Decision::NotOpen => ClaimRejectReason::CampaignNotOpen,
        Decision::Closed => ClaimRejectReason::CampaignClosed,
        Decision::Paused => ClaimRejectReason::CampaignPaused,
    })
}

fn count(outcome: &'static str) {
    metrics::counter!("dibs_claim_requests_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str) -> Record {
        let (topic, bytes) = (REQUESTED.into(), value.len());
        Record { topic, partition: 3, offset: 7, at: 1_790_000_000_123, value: value.into(), bytes }
    }

    fn claim_of(value: &str) -> Result<ClaimId, String> {
        read(&record(value)).map(|request| request.claim)
    }

    #[test]
    fn a_request_is_the_same_claim_whenever_it_comes() {
        let without = r#"{"userId": 1, "couponId": 2}"#;
        let made = claim_of(without).expect("readable");
        assert_eq!(claim_of(without), Ok(made));
        assert_eq!(made.0.get_version_num(), 7);
        let elsewhere = |value: &str| {
            let record = Record { offset: 8, at: 1_790_000_000_999, ..record(value) };
            read(&record).map(|request| request.claim)
        };
        assert_ne!(elsewhere(without), Ok(made));
        for (id, version) in [("019b777f-73fa-7c31-9d2e-5a0f6b8c4e17", 7), ("cart-4711", 8)] {
            let with =
                |user: u64, coupon: u64| format!(r#"{{"userId": {user}, "couponId": {coupon}, "requestId": "{id}"}}"#);
            let claim = claim_of(&with(1, 2)).expect("readable");
            assert_eq!(claim.0.get_version_num(), version);
            assert_eq!(claim.to_string().starts_with("019b777f-73fa-7"), version == 7, "{claim}: the time is its own");
            assert_eq!(elsewhere(&with(1, 2)), Ok(claim));
            assert_ne!(claim_of(&with(1, 3)), Ok(claim), "for another coupon");
            assert_ne!(claim_of(&with(3, 2)), Ok(claim), "for another user");
        }
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
