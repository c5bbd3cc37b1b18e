use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use dibs_common::{
    clock,
    db::{self, Database, claim_refusals::ClaimRefusal},
    domain::claim::ClaimRejectReason,
    error::{Error, Result},
    identifiers::{ClaimId, CouponId, Partition, UserId},
    json,
    metric_table::label,
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
    dead_letters::dead_letter,
};

pub const CLAIM_REQUESTS: &str = "coupon.issue.requested";

/// Claims that one call of the script decides.
const BATCH_SIZE: usize = 250;
/// Campaigns whose partitions are cached. The partition of a campaign never changes.
const CACHE_SIZE: usize = 10_000;
/// Rows that are not in memory take the disk a while.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REQUEST_BYTES: usize = 4 * 1024;
/// In characters.
const MAX_REQUEST_ID_LENGTH: usize = 128;

/// Submits the claim requests of Kafka as claims.
///
/// The claim id of a request never changes: it is derived from the request's own id, user and coupon, or from its
/// position in Kafka when it has no id. So a redelivered request is the same claim: Redis replays what it has accepted,
/// and what was issued or rejected is found in MySQL. An id that several requests share does no harm: for another user
/// or coupon it gives another claim.
pub struct ClaimRequestHandler {
    database: Database,
    redis: Redis,
    partitions: HashMap<CouponId, Partition>,
    /// Claims of the records in flight that are decided and counted, while others of them are retried.
    decided: HashSet<ClaimId>,
}

pub type ClaimRequestConsumer = Consumer<ClaimRequestHandler>;

impl ClaimRequestConsumer {
    pub fn join_claim_requests(cluster: &Cluster, database: &Database, redis: &Redis) -> Result<Self> {
        Self::join(cluster, &[CLAIM_REQUESTS], ClaimRequestHandler::new(database, redis))
    }
}

/// The value of a record.
#[expect(clippy::struct_field_names, reason = "the names are those of the JSON")]
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RequestBody {
    user_id: UserId,
    coupon_id: CouponId,
    #[serde(default)]
    request_id: Option<String>,
}

struct Request<'r> {
    record: &'r Record,
    user: UserId,
    coupon: CouponId,
    claim: ClaimId,
    /// Identifies it in the log.
    name: Bytes,
}

impl Handler for ClaimRequestHandler {
    // Part of the name of the consumer group: another name would read every topic from its beginning.
    const NAME: &'static str = "claim_requests";

    async fn handle(&mut self, records: &[Record]) -> Result<()> {
        let mut requests = Vec::with_capacity(records.len());
        for record in records {
            match decode(record) {
                Ok(request) => requests.push(request),
                Err(reason) => self.dead_letter(record, &reason).await?,
            }
        }
        if requests.is_empty() {
            return Ok(());
        }
        let mut unavailable = None;
        for (coupon, requests) in self.undecided(requests).await? {
            // A campaign that is being rebuilt does not hold up the others.
            match self.claim(coupon, &requests).await {
                Err(error @ Error::CampaignUnavailable(_)) => unavailable = Some(error),
                decided => decided?,
            }
        }
        if let Some(error) = unavailable {
            return Err(error);
        }
        // None of these records is retried any more.
        self.decided.clear();
        Ok(())
    }
}

impl ClaimRequestHandler {
    pub fn new(database: &Database, redis: &Redis) -> Self {
        let (database, redis) = (database.clone(), redis.clone());
        Self { database, redis, partitions: HashMap::new(), decided: HashSet::new() }
    }

    /// Requests whose claims have no final decision yet, by campaign, in order, each claim once.
    async fn undecided<'r>(&self, requests: Vec<Request<'r>>) -> Result<Vec<(CouponId, Vec<Request<'r>>)>> {
        let ids: Vec<ClaimId> = requests.iter().map(|request| request.claim).collect();
        // Redis alone does not know what was rejected, nor a campaign that is over.
        let mut decided =
            db::within_limit(QUERY_TIMEOUT, db::claim_refusals::list_decided(&self.database.pool(), &ids)).await?;
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

    /// Submits the requests for one campaign.
    async fn claim(&mut self, coupon: CouponId, requests: &[Request<'_>]) -> Result<()> {
        let Some(partition) = self.partition(coupon).await? else {
            for request in requests {
                self.dead_letter(request.record, &Error::CouponNotFound(coupon).to_string()).await?;
            }
            return Ok(());
        };
        for requests in requests.chunks(BATCH_SIZE) {
            let claims: Vec<ClaimRequest> = requests
                .iter()
                .map(|Request { user, claim, name, .. }| ClaimRequest {
                    user: *user,
                    claim: *claim,
                    request: name.clone(),
                    trace: None,
                })
                .collect();
            // Without a channel, as no HTTP caller waits.
            let decisions = match scripts::claim(&self.redis, partition, coupon, "", &claims).await? {
                Some(decided) => decided.decisions.into_iter().map(RequestDecision::from).collect(),
                None if self.is_over(coupon).await? => {
                    vec![RequestDecision::Rejected(ClaimRejectReason::CampaignClosed); requests.len()]
                }
                None => return Err(Error::CampaignUnavailable(coupon)),
            };
            self.record(requests, &decisions).await?;
        }
        Ok(())
    }

    /// Writes the rejections, and counts each claim once. Redis accepts a claim only once, so that is counted whatever
    /// happens next; a rejection is counted once it is durable.
    async fn record(&mut self, requests: &[Request<'_>], decisions: &[RequestDecision]) -> Result<()> {
        let mut rejected = Vec::new();
        for (Request { claim, coupon, user, .. }, decision) in requests.iter().zip(decisions) {
            match decision {
                RequestDecision::Accepted => {
                    count("accepted");
                    dibs_common::live::campaign(*coupon).accept(1);
                }
                // The status of the user's claim is that of the first one.
                RequestDecision::Replayed | RequestDecision::Rejected(ClaimRejectReason::CouponAlreadyIssued) => {}
                RequestDecision::Rejected(code) => {
                    rejected.push(ClaimRefusal { claim: *claim, coupon: *coupon, user: *user, code: *code });
                }
            }
        }
        db::within_limit(
            QUERY_TIMEOUT,
            db::claim_refusals::insert_batch(&self.database.pool(), &rejected, clock::now()),
        )
        .await?;
        for (Request { claim, .. }, decision) in requests.iter().zip(decisions) {
            if let RequestDecision::Rejected(code) = decision {
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
        let Some(campaign) = db::within(db::campaigns::find(&self.database.pool(), coupon)).await? else {
            return Ok(None);
        };
        // All at once: an order of use would cost more than the queries that this saves.
        if self.partitions.len() >= CACHE_SIZE {
            self.partitions.clear();
        }
        self.partitions.insert(coupon, campaign.partition);
        Ok(Some(campaign.partition))
    }

    async fn is_over(&self, coupon: CouponId) -> Result<bool> {
        let campaign = db::within(db::campaigns::find(&self.database.pool(), coupon)).await?;
        Ok(campaign.is_none_or(|campaign| clock::now() >= campaign.terms.closes_at))
    }

    async fn dead_letter(&self, record: &Record, reason: &str) -> Result<()> {
        dead_letter(&self.database, CLAIM_REQUESTS, CLAIM_REQUESTS, record, reason).await
    }
}

fn decode(record: &Record) -> Result<Request<'_>, String> {
    if !record.is_whole() || record.value.len() > MAX_REQUEST_BYTES {
        return Err(format!("it is longer than {MAX_REQUEST_BYTES} bytes"));
    }
    let mut reader = serde_json::Deserializer::from_slice(&record.value);
    let body = json::object(&mut reader).and_then(|body| reader.end().map(|()| body));
    let RequestBody { user_id, coupon_id, request_id } = body.map_err(|error| error.to_string())?;
    if let Some(id) = &request_id
        && (id.is_empty() || id.len() > MAX_REQUEST_ID_LENGTH || !id.chars().all(|c| c.is_ascii_graphic()))
    {
        return Err(format!("requestId: expected 1 to {MAX_REQUEST_ID_LENGTH} visible ASCII characters"));
    }
    let claim = match &request_id {
        Some(id) => id_of_request(id, user_id, coupon_id),
        None => ClaimId(id_of(record.at.unsigned_abs(), &record.position())),
    };
    let name = request_id.unwrap_or_else(|| record.position()).into();
    Ok(Request { record, user: user_id, coupon: coupon_id, claim, name })
}

/// The claim id of a request that has an id: the same in every delivery, so its time can only be that of the request's
/// id, if that is a `UUIDv7`.
fn id_of_request(id: &str, user: UserId, coupon: CouponId) -> ClaimId {
    // User and coupon are part of it, so that a producer that reuses ids cannot take another user's claim.
    let identity = format!("{user}/{coupon}/{id}");
    let ordered = Uuid::parse_str(id).ok().filter(|id| id.get_version_num() == 7);
    ClaimId(match ordered {
        Some(id) => id_of(u64::try_from(id.as_u128() >> 80).unwrap_or_default(), &identity),
        // Version 8, as a digest has no time: no reader takes its first bytes for one.
        None => uuid::Builder::from_custom_bytes(digest(&identity)).into_uuid(),
    })
}

/// A `UUIDv7` of a time, in ms since 1970, whose other bits are a digest of `identity`.
fn id_of(at: u64, identity: &str) -> Uuid {
    let [bits @ .., _, _, _, _, _, _] = digest(identity);
    uuid::Builder::from_unix_timestamp_millis(at, &bits).into_uuid()
}

fn digest(identity: &str) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&Sha256::digest(identity)[..16]);
    digest
}

#[derive(Clone, Copy)]
enum RequestDecision {
    Accepted,
    /// It was accepted before.
    Replayed,
    Rejected(ClaimRejectReason),
}

impl From<Decision> for RequestDecision {
    fn from(decision: Decision) -> Self {
        Self::Rejected(match decision {
            Decision::Accepted(_) => return Self::Accepted,
            Decision::Replayed(_) => return Self::Replayed,
            Decision::AlreadyClaimed(_) => ClaimRejectReason::CouponAlreadyIssued,
            Decision::Exhausted => ClaimRejectReason::CouponExhausted,
            Decision::NotOpen => ClaimRejectReason::CampaignNotOpen,
            Decision::Closed => ClaimRejectReason::CampaignClosed,
            Decision::Paused => ClaimRejectReason::CampaignPaused,
        })
    }
}

fn count(outcome: &str) {
    metrics::counter!("dibs_claim_requests_total", "outcome" => label(outcome)).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str) -> Record {
        let (topic, bytes) = (CLAIM_REQUESTS.into(), value.len());
        Record { topic, partition: 3, offset: 7, at: 1_790_000_000_123, value: value.into(), bytes }
    }

    fn claim_of(value: &str) -> Result<ClaimId, String> {
        decode(&record(value)).map(|request| request.claim)
    }

    #[test]
    fn a_request_is_the_same_claim_whenever_it_comes() {
        let without = r#"{"userId": 1, "couponId": 2}"#;
        let claim_id = claim_of(without).expect("readable");
        assert_eq!(claim_of(without), Ok(claim_id));
        assert_eq!(claim_id.0.get_version_num(), 7);
        let elsewhere = |value: &str| {
            let record = Record { offset: 8, at: 1_790_000_000_999, ..record(value) };
            decode(&record).map(|request| request.claim)
        };
        assert_ne!(elsewhere(without), Ok(claim_id));
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
    fn an_invalid_request_is_rejected_with_the_reason() {
        let long = format!(r#"{{"userId": 1, "couponId": 2, "requestId": "{}"}}"#, "x".repeat(129));
        let longer = " ".repeat(MAX_REQUEST_BYTES + 1);
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
