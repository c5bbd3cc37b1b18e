//! What differs between a campaign in Redis and in `MySQL`. `MySQL` is right.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    claim::{ClaimRecord, IssuedPosition},
    cursor::text_cursor,
};
use crate::{
    clock::{LAST_MILLISECOND, Timestamp, from_millis},
    identifiers::{ClaimId, CouponId, UserId},
};

/// In what Redis and MySQL differ.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
pub enum DifferenceKind {
    /// Redis does not hold the campaign: it accepts no claims until a worker has rebuilt it.
    CampaignMissing,
    /// Redis decides claims by another quantity, limit, window or state.
    TermDiffers,
    /// A count is not the number of what it counts.
    CountDiffers,
    /// The coupon is issued, and Redis does not know of it: the user can claim once more, and MySQL rejects that.
    MissingInRedis,
    /// Redis counts a claim that has no coupon and is not on its way to one.
    MissingInMysql,
    /// Both have the claim, with another sequence or time of acceptance.
    RecordDiffers,
    /// What Redis holds of the user is no list of claims.
    UnreadableInRedis,
}

/// What one side has of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedClaim {
    /// Its place in the order of acceptance.
    pub sequence: u32,
    #[serde(serialize_with = "crate::clock::serialize")]
    pub accepted_at: DateTime<Utc>,
}

impl From<ClaimRecord> for RecordedClaim {
    fn from(record: ClaimRecord) -> Self {
        Self { sequence: record.sequence, accepted_at: record.accepted_at }
    }
}

/// A claim in which Redis and MySQL differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimDifference {
    pub kind: DifferenceKind,
    pub user_id: UserId,
    /// Left out when Redis's record of the user cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_id: Option<ClaimId>,
    /// The claim in Redis; left out when Redis has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RecordedClaim>,
    /// The issued coupon in MySQL; left out when MySQL has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mysql: Option<RecordedClaim>,
}

impl ClaimDifference {
    /// Whether its claim was accepted before `moment`, or has its coupon.
    pub fn is_settled(&self, moment: Timestamp) -> bool {
        self.mysql.is_some() || self.redis.is_none_or(|claim| claim.accepted_at < moment)
    }
}

/// A term or count in which Redis and MySQL differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldDifference {
    pub kind: DifferenceKind,
    /// Such as `total`, `state`, `claimed` or `issuedQuantity`.
    pub field: String,
    /// What is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What should be there.
    pub expected: String,
}

/// What Redis has of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldClaims {
    pub records: Vec<ClaimRecord>,
    /// Not a list of records.
    pub is_unreadable: bool,
}

impl HeldClaims {
    fn find(&self, claim: ClaimId) -> Option<RecordedClaim> {
        self.records.iter().find(|record| record.claim_id == claim).copied().map(Into::into)
    }
}

/// The difference of an issued claim, given what Redis has of its user.
pub fn compare_issued(user: UserId, issued: ClaimRecord, held: &HeldClaims) -> Option<ClaimDifference> {
    let claim = issued.claim_id;
    classify(user, claim, held.find(claim), Some(issued.into()))
}

/// The differences of what Redis has of a user, given which of its claims are issued. Sequence and time are compared by
/// [`compare_issued`].
pub fn compare_held(user: UserId, held: &HeldClaims, issued: &BTreeSet<ClaimId>) -> Vec<ClaimDifference> {
    let unknown = held.records.iter().filter(|record| !issued.contains(&record.claim_id));
    let unknown = unknown.filter_map(|record| classify(user, record.claim_id, Some((*record).into()), None));
    let unreadable = held.is_unreadable.then_some(ClaimDifference {
        kind: DifferenceKind::UnreadableInRedis,
        user_id: user,
        claim_id: None,
        redis: None,
        mysql: None,
    });
    unknown.chain(unreadable).collect()
}

fn classify(
    user_id: UserId,
    claim: ClaimId,
    redis: Option<RecordedClaim>,
    mysql: Option<RecordedClaim>,
) -> Option<ClaimDifference> {
    let kind = match (redis, mysql) {
        (None, None) => return None,
        (Some(redis), Some(mysql)) if redis == mysql => return None,
        (Some(_), Some(_)) => DifferenceKind::RecordDiffers,
        (None, Some(_)) => DifferenceKind::MissingInRedis,
        (Some(_), None) => DifferenceKind::MissingInMysql,
    };
    Some(ClaimDifference { kind, user_id, claim_id: Some(claim), redis, mysql })
}

/// What was read again of the claims and users of suspected differences: on the stream first, then in MySQL, then in
/// Redis.
#[derive(Clone, Debug, Default)]
pub struct Recheck {
    /// Accepted claims that may have no outcome yet.
    pub on_their_way: BTreeSet<ClaimId>,
    pub issued: BTreeSet<ClaimId>,
    pub held: BTreeMap<UserId, HeldClaims>,
}

/// Suspects that still differ, and how many are claims on their way.
///
/// An accepted claim is on the stream until its outcome is durable and, if that is a rejection, until its quantity went
/// back. So one that was not on the stream, and is in Redis but not in MySQL when these are read later, has no outcome.
pub fn confirm(suspects: Vec<ClaimDifference>, read: &Recheck) -> (Vec<ClaimDifference>, u64) {
    let (mut confirmed, mut on_their_way) = (Vec::new(), 0);
    for suspect in suspects {
        let held = read.held.get(&suspect.user_id).cloned().unwrap_or_default();
        let Some(claim) = suspect.claim_id else {
            confirmed.extend(held.is_unreadable.then_some(suspect));
            continue;
        };
        let mysql = suspect.mysql.filter(|_| read.issued.contains(&claim));
        if mysql.is_none() && read.issued.contains(&claim) {
            // It was on its way when it was suspected.
            continue;
        }
        match classify(suspect.user_id, claim, held.find(claim), mysql) {
            Some(still) if still.mysql.is_none() && read.on_their_way.contains(&claim) => on_their_way += 1,
            still => confirmed.extend(still),
        }
    }
    (confirmed, on_their_way)
}

/// Where an audit goes on: first through the issued coupons, then through what Redis holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditPosition {
    /// After the coupon at this place; none: from the first.
    Issued(Option<IssuedPosition>),
    /// At a cursor of HSCAN, after this user of its page; none: from the first.
    Held { cursor: u64, after: Option<UserId> },
}

impl AuditPosition {
    pub const START: Self = Self::Issued(None);
}

impl Display for AuditPosition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issued(None) => f.write_str("issued"),
            Self::Issued(Some(IssuedPosition { valid_until, claim })) => {
                write!(f, "issued.{}.{claim}", valid_until.timestamp_millis())
            }
            Self::Held { cursor, after: None } => write!(f, "held.{cursor}"),
            Self::Held { cursor, after: Some(user) } => write!(f, "held.{cursor}.{user}"),
        }
    }
}

impl FromStr for AuditPosition {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let user = |text: &str| text.parse::<u64>().ok().and_then(|user| UserId::try_from(user).ok());
        let parts: Vec<&str> = text.split('.').collect();
        let position = match parts[..] {
            ["issued"] => Some(Self::Issued(None)),
            ["issued", valid_until, claim] => {
                let valid_until = valid_until.parse().ok().filter(|millis| (0..=LAST_MILLISECOND).contains(millis));
                // In the one form that is written: others do not match the pattern.
                let claim = Uuid::try_parse(claim).ok().filter(|id| id.to_string() == claim);
                let position = valid_until
                    .zip(claim)
                    .map(|(millis, claim)| IssuedPosition { valid_until: from_millis(millis), claim: ClaimId(claim) });
                position.map(|position| Self::Issued(Some(position)))
            }
            ["held", cursor] => cursor.parse().ok().map(|cursor| Self::Held { cursor, after: None }),
            ["held", cursor, after] => {
                let position = cursor.parse().ok().zip(user(after));
                position.map(|(cursor, after)| Self::Held { cursor, after: Some(after) })
            }
            _ => None,
        };
        position.ok_or("expected the cursor of an audit")
    }
}

impl AuditPosition {
    /// The format of its text in the OpenAPI document.
    pub const FORMAT: &str = "audit-cursor";

    fn pattern() -> String {
        "^(issued(\\.[0-9]{1,15}\\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?|held\\.[0-9]{1,19}(\\.[1-9][0-9]{0,14})?)$".to_owned()
    }
}

text_cursor!(AuditPosition, "the cursor of an audit");

/// The type of the event that reports a drift.
pub const DRIFT_DETECTED: &str = "coupon.drift_detected";
/// Differences that an event names; `counts` has all.
pub const NAMED_DIFFERENCES: usize = 20;

/// The payload of a drift that was detected.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftDetected<'d> {
    pub coupon_id: CouponId,
    #[serde(serialize_with = "crate::clock::serialize")]
    pub detected_at: DateTime<Utc>,
    /// How many of each kind.
    pub counts: BTreeMap<DifferenceKind, u64>,
    pub fields: &'d [FieldDifference],
    pub claims: &'d [ClaimDifference],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_millis;

    fn user(id: u64) -> UserId {
        id.try_into().expect("an id")
    }

    fn record(sequence: u32) -> ClaimRecord {
        ClaimRecord { claim_id: ClaimId::generate(), sequence, accepted_at: from_millis(1_790_000_000_000) }
    }

    fn held(records: &[ClaimRecord]) -> HeldClaims {
        HeldClaims { records: records.to_vec(), is_unreadable: false }
    }

    fn kinds(differences: &[ClaimDifference]) -> Vec<DifferenceKind> {
        differences.iter().map(|difference| difference.kind).collect()
    }

    #[test]
    fn each_kind_of_difference_is_named() {
        let (one, two) = (record(1), record(2));
        assert_eq!(compare_issued(user(1), one, &held(&[two, one])), None);
        let missing = compare_issued(user(1), one, &held(&[two])).expect("a difference");
        assert_eq!((missing.kind, missing.redis), (DifferenceKind::MissingInRedis, None));
        let other = ClaimRecord { sequence: 9, ..one };
        let differs = compare_issued(user(1), one, &held(&[other])).expect("a difference");
        assert_eq!((differs.kind, differs.redis.map(|it| it.sequence)), (DifferenceKind::RecordDiffers, Some(9)));
        let unknown = compare_held(user(1), &held(&[one, two]), &BTreeSet::from([one.claim_id]));
        assert_eq!(kinds(&unknown), [DifferenceKind::MissingInMysql]);
        assert_eq!(unknown[0].claim_id, Some(two.claim_id));
        let unreadable = HeldClaims { records: Vec::new(), is_unreadable: true };
        assert_eq!(kinds(&compare_held(user(1), &unreadable, &BTreeSet::new())), [DifferenceKind::UnreadableInRedis]);
    }

    #[test]
    fn what_was_on_its_way_or_has_ended_meanwhile_is_no_difference() {
        let claims = [record(1), record(2), record(3), record(4)];
        let suspects: Vec<_> = compare_held(user(1), &held(&claims), &BTreeSet::new());
        let read = Recheck {
            on_their_way: BTreeSet::from([claims[0].claim_id]),
            issued: BTreeSet::from([claims[1].claim_id]),
            // The quantity of the third went back.
            held: BTreeMap::from([(user(1), held(&[claims[0], claims[1], claims[3]]))]),
        };
        let (confirmed, on_their_way) = confirm(suspects, &read);
        assert_eq!((kinds(&confirmed), on_their_way), (vec![DifferenceKind::MissingInMysql], 1));
        assert_eq!(confirmed[0].claim_id, Some(claims[3].claim_id));
    }

    #[test]
    fn an_issued_claim_is_missing_until_redis_has_it_or_the_coupon_is_gone() {
        let issued = record(1);
        let suspects: Vec<_> = compare_issued(user(1), issued, &held(&[])).into_iter().collect();
        let read = |is_issued: bool, records: &[ClaimRecord]| Recheck {
            issued: is_issued.then_some(issued.claim_id).into_iter().collect(),
            held: BTreeMap::from([(user(1), held(records))]),
            ..Recheck::default()
        };
        assert_eq!(kinds(&confirm(suspects.clone(), &read(true, &[])).0), [DifferenceKind::MissingInRedis]);
        assert_eq!(confirm(suspects.clone(), &read(true, &[issued])).0, []);
        assert_eq!(confirm(suspects, &read(false, &[])).0, []);
    }

    #[test]
    fn a_position_is_parsed_from_its_display() {
        let positions = [
            (AuditPosition::START, "issued"),
            (
                AuditPosition::Issued(Some(IssuedPosition {
                    valid_until: from_millis(1_790_000_000_123),
                    claim: ClaimId(uuid::uuid!("01985d5c-2a00-7000-8000-000000000002")),
                })),
                "issued.1790000000123.01985d5c-2a00-7000-8000-000000000002",
            ),
            (AuditPosition::Held { cursor: u64::MAX, after: None }, "held.18446744073709551615"),
            (AuditPosition::Held { cursor: 5, after: Some(user(3)) }, "held.5.3"),
        ];
        for (position, text) in positions {
            assert_eq!((position.to_string().as_str(), text.parse()), (text, Ok(position)));
        }
        for wrong in [
            "",
            "issued.1",
            "issued.7.2",
            "issued.-1.01985d5c-2a00-7000-8000-000000000002",
            "held",
            "held.x",
            "held.1.0",
            "other.1",
        ] {
            wrong.parse::<AuditPosition>().expect_err(wrong);
        }
    }
}
