use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use fred::types::{Value, scripts::Script};
use uuid::Uuid;

use super::{Contract, integer, run, unexpected};
use crate::{
    clock::{Timestamp, from_millis},
    domain::claim::ClaimRecord,
    error::Result,
    identifiers::{ClaimId, CouponId, Partition, UserId},
    redis::Redis,
};

pub(super) const CONTRACT: Contract = Contract {
    source: include_str!("../../../../lua/claim.lua"),
    keys: &["campaign", "claims", "stream"],
    arguments: &["coupon", "reply_channel", "issuer", "user, claim, request"],
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
const DECISION_BYTES: usize = 1 + RECORD_BYTES;

#[derive(Clone, Debug)]
pub struct ClaimRequest {
    pub user: UserId,
    /// A repeat with the same id gets the same decision.
    pub claim: ClaimId,
    /// The id of the HTTP request, empty when it is the claim's; at most 255 bytes.
    pub request: Bytes,
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
    let mut arguments = Vec::with_capacity(3 + 3 * claims.len());
    arguments.push(Value::from(coupon.get().to_string()));
    arguments.push(Value::from(reply_channel));
    arguments.push(Value::from(issuer));
    for request in claims {
        arguments.push(Value::from(request.user.get().to_string()));
        arguments.push(Value::Bytes(Bytes::copy_from_slice(request.claim.0.as_bytes())));
        arguments.push(Value::Bytes(request.request.clone()));
    }
    let reply = run(redis, &SCRIPT, keys, arguments).await?;
    // Decisions come as one string of fixed width: nested arrays would take longer to write and to read.
    match reply.as_slice() {
        [Value::Integer(0)] => Ok(None),
        [Value::Integer(1), now, remaining, opens_at, packed] => {
            let packed = packed.as_bytes().ok_or_else(|| unexpected(packed))?;
            let decisions: Vec<Decision> = packed
                .chunks_exact(DECISION_BYTES)
                .map(decision)
                .collect::<Option<_>>()
                .ok_or_else(|| unexpected(&packed))?;
            if decisions.len() != claims.len() {
                return Err(unexpected(&packed));
            }
            Ok(Some(Decisions {
                now: from_millis(integer(Some(now))?),
                // Negative when the total was lowered below the accepted claims.
                remaining: u32::try_from(integer(Some(remaining))?).unwrap_or(0),
                opens_at: from_millis(integer(Some(opens_at))?),
                decisions,
            }))
        }
        other => Err(unexpected(&other)),
    }
}

fn decision(packed: &[u8]) -> Option<Decision> {
    let (code, record) = packed.split_first()?;
    let record = read_record(record)?;
    match code {
        1 => Some(Decision::Accepted(record)),
        2 => Some(Decision::Replayed(record)),
        3 => Some(Decision::AlreadyClaimed(record)),
        4 => Some(Decision::Exhausted),
        5 => Some(Decision::NotOpen),
        6 => Some(Decision::Closed),
        7 => Some(Decision::Paused),
        _ => None,
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
