use std::{collections::HashMap, fmt};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::Entry;
use crate::{
    clock::from_millis,
    domain::{
        claim::{Claim, ClaimOutcome, ClaimRejectReason},
        dead_letter::CLAIMS,
        trace_context::TraceContext,
    },
    identifiers::{ClaimId, CouponId, Partition, UserId},
    redis::{
        keys::{ISSUANCE_GROUP, Keys},
        scripts::{RECORD_BYTES, read_record},
    },
};

/// Accepted claims of one campaign, in order, as one call of the claim script appended them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimEntry {
    /// Where a process waits for the outcome of one of them; empty for none. The field `answers` of an entry, whose
    /// names every version reads.
    pub reply_channel: String,
    /// In the order of acceptance.
    pub claims: Vec<Claim>,
}

/// Why an entry cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "malformed entry: {}", self.0)
    }
}

impl Entry for ClaimEntry {
    const GROUP: &'static str = ISSUANCE_GROUP;
    const NAME: &'static str = "claims";
    const TYPE: &'static str = "claims.v1";
    const SOURCE: &'static str = CLAIMS;

    fn stream(keys: &Keys, partition: Partition) -> String {
        keys.claim_stream(partition)
    }

    /// All claims of an entry are of one campaign.
    fn aggregate_id(&self) -> String {
        self.claims.first().map(|claim| claim.coupon.to_string()).unwrap_or_default()
    }

    fn traces(&self) -> impl Iterator<Item = TraceContext> {
        self.claims.iter().filter_map(|claim| claim.trace)
    }

    fn read(fields: &HashMap<String, Bytes>) -> Result<Self, Malformed> {
        let field = |name: &str| fields.get(name).ok_or_else(|| Malformed(format!("no field '{name}'")));
        let text = |name: &str| {
            let value = field(name)?;
            std::str::from_utf8(value).map_err(|_| Malformed(format!("field '{name}' is not text")))
        };
        match text("type")? {
            Self::TYPE => {
                let number: u64 =
                    text("coupon")?.parse().map_err(|_| Malformed("field 'coupon' is no number".into()))?;
                let coupon = CouponId::try_from(number).map_err(Malformed)?;
                let mut claims = read_claims(coupon, field("claims")?)?;
                let is_assigned = fields.get("issuer").is_some_and(|issuer| &issuer[..] == b"ADMINISTRATOR");
                let traces = fields.get("traces").map(|packed| read_traces(packed)).unwrap_or_default();
                for claim in &mut claims {
                    claim.is_assigned = is_assigned;
                    claim.trace = traces.get(&claim.record.claim_id).copied();
                }
                Ok(Self { reply_channel: text("answers")?.to_owned(), claims })
            }
            other => Err(Malformed(format!("unknown type '{other}'"))),
        }
    }
}

/// Claims stand one after the other: a record, the user (8 bytes), the length of the request id (1), that id.
fn read_claims(coupon: CouponId, mut packed: &[u8]) -> Result<Vec<Claim>, Malformed> {
    // At most so many: each also has its request id.
    let mut claims = Vec::with_capacity(packed.len() / (RECORD_BYTES + 9));
    while packed.has_remaining() {
        let short = || Malformed("claims end in the middle of one".into());
        let record = read_record(packed).ok_or_else(short)?;
        packed.advance(RECORD_BYTES);
        let user = packed.try_get_u64().map_err(|_| short())?;
        let length = usize::from(packed.try_get_u8().map_err(|_| short())?);
        let request = packed.get(..length).ok_or_else(short)?;
        let request = String::from_utf8_lossy(request).into_owned();
        packed.advance(length);
        let user = UserId::try_from(user).map_err(Malformed)?;
        claims.push(Claim { coupon, user, record, request, is_assigned: false, trace: None });
    }
    if claims.is_empty() { Err(Malformed("no claims".into())) } else { Ok(claims) }
}

/// Traces stand one after the other: the claim's id, the trace's (16 bytes), the span's (8).
fn read_traces(packed: &[u8]) -> HashMap<ClaimId, TraceContext> {
    let read = |one: &[u8]| {
        let (claim, trace_id) = (Uuid::from_slice(one.get(..16)?).ok()?, one.get(16..32)?.try_into().ok()?);
        Some((ClaimId(claim), TraceContext { trace_id, span_id: one.get(32..)?.try_into().ok()? }))
    };
    packed.chunks_exact(40).filter_map(read).collect()
}

/// The outcome of a claim, as the worker publishes it to a process that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimOutcomeMessage {
    pub claim: ClaimId,
    pub outcome: ClaimOutcome,
}

const OUTCOME_BYTES: usize = 16 + 1 + 8;

impl ClaimOutcomeMessage {
    /// Outcomes in one message: each the claim's id, a code (0 is issued), the end of validity in ms.
    pub fn write_all(outcomes: &[Self]) -> Bytes {
        let mut message = BytesMut::with_capacity(outcomes.len() * OUTCOME_BYTES);
        for one in outcomes {
            message.put_slice(one.claim.0.as_bytes());
            // Spelled one by one, not taken from the order of the variants: processes of other versions read these
            // codes.
            let (code, valid_until) = match one.outcome {
                ClaimOutcome::Issued { valid_until } => (0, valid_until.timestamp_millis()),
                ClaimOutcome::Rejected(ClaimRejectReason::CouponNotFound) => (1, 0),
                ClaimOutcome::Rejected(ClaimRejectReason::CouponAlreadyIssued) => (2, 0),
                ClaimOutcome::Rejected(ClaimRejectReason::CouponExhausted) => (3, 0),
                ClaimOutcome::Rejected(ClaimRejectReason::CampaignNotOpen) => (4, 0),
                ClaimOutcome::Rejected(ClaimRejectReason::CampaignPaused) => (5, 0),
                ClaimOutcome::Rejected(ClaimRejectReason::CampaignClosed) => (6, 0),
                ClaimOutcome::Rejected(ClaimRejectReason::ClaimFailed) => (7, 0),
            };
            message.put_u8(code);
            message.put_i64(valid_until);
        }
        message.freeze()
    }

    /// The outcomes of a message; those of a code that this version does not know are left out, and are found in
    /// the database instead.
    pub fn read_all(message: &[u8]) -> impl Iterator<Item = Self> {
        message.chunks_exact(OUTCOME_BYTES).filter_map(|mut packed| {
            let claim = ClaimId(Uuid::from_slice(packed.get(..16)?).ok()?);
            packed.advance(16);
            let outcome = match (packed.get_u8(), packed.get_i64()) {
                (0, millis) => ClaimOutcome::Issued { valid_until: from_millis(millis) },
                (1, _) => ClaimOutcome::Rejected(ClaimRejectReason::CouponNotFound),
                (2, _) => ClaimOutcome::Rejected(ClaimRejectReason::CouponAlreadyIssued),
                (3, _) => ClaimOutcome::Rejected(ClaimRejectReason::CouponExhausted),
                (4, _) => ClaimOutcome::Rejected(ClaimRejectReason::CampaignNotOpen),
                (5, _) => ClaimOutcome::Rejected(ClaimRejectReason::CampaignPaused),
                (6, _) => ClaimOutcome::Rejected(ClaimRejectReason::CampaignClosed),
                (7, _) => ClaimOutcome::Rejected(ClaimRejectReason::ClaimFailed),
                _ => return None,
            };
            Some(Self { claim, outcome })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(entries: &[(&str, &[u8])]) -> HashMap<String, Bytes> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value))).collect()
    }

    #[test]
    fn malformed_entries_say_what_is_wrong() {
        let reason = |entries: &[(&str, &[u8])]| ClaimEntry::read(&fields(entries)).expect_err("malformed").0;
        assert_eq!(reason(&[]), "no field 'type'");
        assert_eq!(reason(&[("type", b"claims.v9")]), "unknown type 'claims.v9'");
        let begin: [(&str, &[u8]); 2] = [("type", b"claims.v1"), ("answers", b"")];
        assert_eq!(reason(&[begin[0], begin[1], ("coupon", b"x"), ("claims", b"")]), "field 'coupon' is no number");
        assert_eq!(reason(&[begin[0], begin[1], ("coupon", b"1"), ("claims", b"")]), "no claims");
        assert_eq!(
            reason(&[begin[0], begin[1], ("coupon", b"1"), ("claims", b"short")]),
            "claims end in the middle of one"
        );
    }

    #[test]
    fn outcomes_survive_writing_and_reading() {
        let outcomes = [
            ClaimOutcome::Issued { valid_until: from_millis(1_790_000_000_000) },
            ClaimOutcome::Rejected(ClaimRejectReason::CouponNotFound),
            ClaimOutcome::Rejected(ClaimRejectReason::CouponAlreadyIssued),
            ClaimOutcome::Rejected(ClaimRejectReason::CouponExhausted),
            ClaimOutcome::Rejected(ClaimRejectReason::CampaignNotOpen),
            ClaimOutcome::Rejected(ClaimRejectReason::CampaignPaused),
            ClaimOutcome::Rejected(ClaimRejectReason::CampaignClosed),
            ClaimOutcome::Rejected(ClaimRejectReason::ClaimFailed),
        ]
        .map(|outcome| ClaimOutcomeMessage { claim: ClaimId::generate(), outcome });
        let message = ClaimOutcomeMessage::write_all(&outcomes);
        assert_eq!(ClaimOutcomeMessage::read_all(&message).collect::<Vec<_>>(), outcomes);
    }
}
