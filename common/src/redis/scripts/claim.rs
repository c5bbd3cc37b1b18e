use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use fred::types::{Value, scripts::Script};
use uuid::Uuid;

use super::{Contract, integer, run, unexpected};
use crate::{
    clock::{Timestamp, from_millis},
    domain::{claim::ClaimRecord, trace_context::TraceContext},
    error::Result,
    identifiers::{ClaimId, CouponId, Partition, UserId},
    redis::Redis,
};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/claim.lua"),
    keys: &["campaign", "claims", "stream"],
    arguments: &["coupon", "reply_channel", "issuer", "claims", "senders", "traces", "user"],
    codes: &[
        ("UNKNOWN", 0),
        ("DECIDED", 1),
        ("ACCEPTED", 1),
        ("REPLAYED", 2),
        ("ALREADY_CLAIMED", 3),
        ("EXHAUSTED", 4),
        ("NOT_OPEN", 5),
        ("CLOSED", 6),
        ("PAUSED", 7),
    ],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// Bytes of a record: claim id (16), sequence (4), accepted at (6).
pub const RECORD_BYTES: usize = 26;
/// Arguments before the users.
const FIXED_ARGUMENTS: usize = 6;

#[derive(Clone, Debug)]
pub struct ClaimRequest {
    pub user: UserId,
    /// A repeat with the same id gets the same decision.
    pub claim: ClaimId,
    /// The id of the HTTP request, empty when it is the claim's; of a longer one than 255 bytes, its beginning.
    pub request: Bytes,
    /// The request, when it is sampled.
    pub trace: Option<TraceContext>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Accepted(ClaimRecord),
    /// It was accepted before, with the same claim id.
    Replayed(ClaimRecord),
    /// The user is at the campaign's limit, or has a claim and can get no other; this was the first claim.
    AlreadyClaimed(ClaimRecord),
    /// No quantity remains.
    Exhausted,
    /// The claim window has not begun.
    NotOpen,
    /// The claim window is over, or an administrator closed the campaign.
    Closed,
    /// By an administrator.
    Paused,
}

#[derive(Clone, Debug)]
pub struct Decisions {
    /// The clock of Redis.
    pub now: Timestamp,
    /// The remaining quantity after the call.
    pub remaining: u32,
    pub opens_at: Timestamp,
    /// One for each claim, in their order.
    pub decisions: Vec<Decision>,
}

/// Decides claims on one campaign, in their order, in one round trip; none when Redis does not hold the campaign.
/// `reply_channel` belongs to a process that waits for an outcome of one of them; empty for none. See `lua/claim.lua`.
pub async fn claim(
    redis: &Redis,
    partition: Partition,
    coupon: CouponId,
    reply_channel: &str,
    claims: &[ClaimRequest],
) -> Result<Option<Decisions>> {
    decide(redis, Call { partition, coupon, reply_channel, issuer: "" }, claims).await
}

/// The same for claims by which an administrator assigns the coupon. Neither the claim window nor a pause applies, so
/// no decision is [`Decision::NotOpen`] or [`Decision::Paused`], and [`Decision::Closed`] means that an administrator
/// closed the campaign.
pub async fn assign(
    redis: &Redis,
    partition: Partition,
    coupon: CouponId,
    claims: &[ClaimRequest],
) -> Result<Option<Decisions>> {
    decide(redis, Call { partition, coupon, reply_channel: "", issuer: "ADMINISTRATOR" }, claims).await
}

struct Call<'c> {
    partition: Partition,
    coupon: CouponId,
    reply_channel: &'c str,
    issuer: &'static str,
}

async fn decide(redis: &Redis, call: Call<'_>, claims: &[ClaimRequest]) -> Result<Option<Decisions>> {
    let Call { partition, coupon, reply_channel, issuer } = call;
    let keys = vec![
        redis.keys.campaign(partition, coupon),
        redis.keys.claims(partition, coupon),
        redis.keys.claim_stream(partition),
    ];
    let mut arguments = Vec::with_capacity(FIXED_ARGUMENTS + claims.len());
    arguments.push(Value::from(coupon.get().to_string()));
    arguments.push(Value::from(reply_channel));
    arguments.push(Value::from(issuer));
    let (ids, senders) = packed(claims);
    arguments.push(Value::Bytes(ids));
    arguments.push(Value::Bytes(senders));
    arguments.push(Value::Bytes(traces(claims)));
    arguments.extend(claims.iter().map(|request| Value::from(request.user.get().to_string())));
    let reply = run(redis, &SCRIPT, keys, arguments).await?;
    match reply.as_slice() {
        [Value::Integer(0)] => Ok(None),
        [Value::Integer(1), now, remaining, opens_at, sequence, codes, records] => {
            let decided = Decided {
                now: from_millis(integer(Some(now))?),
                sequence: u32::try_from(integer(Some(sequence))?).map_err(|_| unexpected(sequence))?,
                codes: codes.as_bytes().ok_or_else(|| unexpected(codes))?,
                records: records.as_bytes().ok_or_else(|| unexpected(records))?,
            };
            Ok(Some(Decisions {
                now: decided.now,
                // Negative when the total was lowered below the accepted claims.
                remaining: u32::try_from(integer(Some(remaining))?).unwrap_or(0),
                opens_at: from_millis(integer(Some(opens_at))?),
                decisions: decided.of(claims).ok_or_else(|| unexpected(codes))?,
            }))
        }
        other => Err(unexpected(&other)),
    }
}

/// The arguments `claims` and `senders`. Two strings and not two for each claim: Redis takes longer to read many
/// arguments than to cut one.
fn packed(claims: &[ClaimRequest]) -> (Bytes, Bytes) {
    let mut ids = BytesMut::with_capacity(16 * claims.len());
    let mut senders = BytesMut::with_capacity(9 * claims.len());
    for ClaimRequest { user, claim, request, .. } in claims {
        ids.put_slice(claim.0.as_bytes());
        // What does not fit is cut: it is for people who search a log.
        let request = &request[..request.len().min(u8::MAX.into())];
        senders.put_u64(user.get());
        senders.put_u8(u8::try_from(request.len()).unwrap_or(u8::MAX));
        senders.put_slice(request);
    }
    (ids.freeze(), senders.freeze())
}

/// The argument `traces`: that of claims of sampled requests.
fn traces(claims: &[ClaimRequest]) -> Bytes {
    let mut packed = BytesMut::new();
    for ClaimRequest { claim, trace, .. } in claims {
        if let Some(TraceContext { trace_id, span_id }) = trace {
            packed.put_slice(claim.0.as_bytes());
            packed.put_slice(trace_id);
            packed.put_slice(span_id);
        }
    }
    packed.freeze()
}

/// What the script returns about the claims of a call.
struct Decided<'r> {
    now: Timestamp,
    /// The last one of the campaign.
    sequence: u32,
    /// One for each claim.
    codes: &'r [u8],
    /// Of the claims whose records the caller cannot know.
    records: &'r [u8],
}

impl Decided<'_> {
    /// The decisions on these claims; none when the reply is not about them.
    fn of(&self, claims: &[ClaimRequest]) -> Option<Vec<Decision>> {
        let accepted: u32 = self.codes.iter().map(|code| u32::from(*code == 1)).sum();
        let mut sequence = self.sequence.checked_sub(accepted)?;
        let mut records = self.records.chunks_exact(RECORD_BYTES).map(read_record);
        let decisions = self.codes.iter().zip(claims).map(|(code, request)| {
            Some(match code {
                1 => {
                    sequence += 1;
                    Decision::Accepted(ClaimRecord { claim_id: request.claim, sequence, accepted_at: self.now })
                }
                2 => Decision::Replayed(records.next()??),
                3 => Decision::AlreadyClaimed(records.next()??),
                4 => Decision::Exhausted,
                5 => Decision::NotOpen,
                6 => Decision::Closed,
                7 => Decision::Paused,
                _ => return None,
            })
        });
        let decisions: Vec<Decision> = decisions.collect::<Option<_>>()?;
        (decisions.len() == claims.len() && self.codes.len() == claims.len()).then_some(decisions)
    }
}

/// Decodes the record at the start of `packed`; none when it is too short.
pub fn read_record(packed: &[u8]) -> Option<ClaimRecord> {
    let claim = Uuid::from_slice(packed.get(..16)?).ok()?;
    let sequence = u32::from_be_bytes(packed.get(16..20)?.try_into().ok()?);
    // 48 bits of milliseconds last for 8,900 years.
    let mut millis = [0; 8];
    millis[2..].copy_from_slice(packed.get(20..RECORD_BYTES)?);
    Some(ClaimRecord { claim_id: ClaimId(claim), sequence, accepted_at: from_millis(i64::from_be_bytes(millis)) })
}

/// Encodes a record as the scripts do.
pub fn write_record(record: &ClaimRecord) -> Bytes {
    let mut packed = BytesMut::with_capacity(RECORD_BYTES);
    packed.put_slice(record.claim_id.0.as_bytes());
    packed.put_u32(record.sequence);
    packed.put_slice(&record.accepted_at.timestamp_millis().to_be_bytes()[2..]);
    packed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_is_not_about_the_claims_is_no_decision() {
        let request = |user: u64| ClaimRequest {
            user: user.try_into().expect("an id"),
            claim: ClaimId::generate(),
            request: Bytes::new(),
            trace: None,
        };
        let claims = [request(1), request(2)];
        let decided = |sequence, codes| Decided { now: from_millis(7), sequence, codes, records: &[] }.of(&claims);
        let decisions = decided(9, &[1, 4]).expect("decisions");
        let record = ClaimRecord { claim_id: claims[0].claim, sequence: 9, accepted_at: from_millis(7) };
        assert_eq!(decisions, [Decision::Accepted(record), Decision::Exhausted]);
        // Too few and too many codes, more accepted claims than sequences, an unknown code, a missing record.
        for (sequence, codes) in [(9, &[1][..]), (9, &[1, 1, 1]), (1, &[1, 1]), (9, &[1, 0]), (9, &[1, 2])] {
            assert_eq!(decided(sequence, codes), None, "{sequence} {codes:?}");
        }
    }

    #[test]
    fn a_long_request_id_is_cut_where_its_length_ends() {
        let request = Bytes::from(vec![b'a'; 300]);
        let claim =
            ClaimRequest { user: 7.try_into().expect("an id"), claim: ClaimId::generate(), request, trace: None };
        let (ids, senders) = packed(std::slice::from_ref(&claim));
        assert_eq!(&ids[..], claim.claim.0.as_bytes());
        assert_eq!((senders.len(), senders[8]), (8 + 1 + 255, 255));
    }

    #[test]
    fn a_record_survives_writing_and_reading() {
        let record = ClaimRecord {
            claim_id: ClaimId::generate(),
            sequence: 4_000_000_000,
            accepted_at: from_millis(1_790_000_000_123),
        };
        let packed = write_record(&record);
        assert_eq!(packed.len(), RECORD_BYTES);
        assert_eq!(read_record(&packed), Some(record));
        assert_eq!(read_record(&packed[1..]), None);
    }
}
