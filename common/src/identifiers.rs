//! Ids. Those of users and coupons are numbers that a JSON reader can hold exactly; those that Dibs makes are
//! `UUIDv7`, so that they sort by time.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    clock::{Timestamp, from_millis},
    json,
};

/// The largest number that every JSON reader holds exactly: 2^53 - 1.
pub const MAX_ID: u64 = (1 << 53) - 1;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "u64")]
        #[schema(value_type = u64, minimum = 1, maximum = 9_007_199_254_740_991_u64)]
        pub struct $name(u64);

        impl $name {
            /// The number itself.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl TryFrom<u64> for $name {
            type Error = String;

            fn try_from(number: u64) -> Result<Self, String> {
                if (1..=MAX_ID).contains(&number) {
                    Ok(Self(number))
                } else {
                    Err(format!("expected an id from 1 to {MAX_ID}, got {number}"))
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

number_id!(
    /// A user of the shop. Dibs keeps no users, only their ids.
    UserId
);
number_id!(
    /// A campaign, as the table `coupons` numbers it.
    CouponId
);

number_id!(
    /// A product, as the table `products` numbers it.
    ProductId
);
number_id!(
    /// What an administrator did, as the table `admin_actions` numbers it.
    AdminActionId
);

number_id!(
    /// An API key, as the table `api_keys` numbers it.
    ApiKeyId
);

number_id!(
    /// A dead letter, as the table `dead_letters` numbers it.
    DeadLetterId
);

number_id!(
    /// A row of a user's ledger, as the table `point_histories` numbers it. Later rows have higher ids.
    PointHistoryId
);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
        pub struct $name(pub Uuid);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                json::text(deserializer, "a UUID in lower case with hyphens", parse_uuid).map(Self)
            }
        }

        impl $name {
            /// A new id, later in order than those made before.
            pub fn generate() -> Self {
                Self(new_uuid())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

uuid_id!(
    /// A claim; also the id of the issuance that answers it.
    ClaimId
);
uuid_id!(
    /// An assignment: what gives a coupon to many users.
    AssignmentId
);
uuid_id!(
    /// A rebuild of a campaign that was requested.
    RebuildId
);
uuid_id!(
    /// A command; also the id of what it makes: an order, or a payment.
    CommandId
);
uuid_id!(
    /// An order; also the id of the command that placed it.
    OrderId
);
uuid_id!(
    /// A payment of an order.
    PaymentId
);
uuid_id!(
    /// A purchase of points.
    ChargeId
);
uuid_id!(
    /// Points that an administrator granted or took back.
    AdjustmentId
);

/// A UUID in its canonical form, in lower case with hyphens. Other forms, such as `urn:uuid:` or braces, would give one
/// resource several names.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    const CANONICAL_LENGTH: usize = 36;
    let is_canonical = text.len() == CANONICAL_LENGTH && !text.bytes().any(|byte| byte.is_ascii_uppercase());
    is_canonical.then(|| Uuid::try_parse(text).ok())?
}

/// A new `UUIDv7`. The one home of randomness.
#[expect(clippy::disallowed_methods, reason = "the one home of randomness")]
pub fn new_uuid() -> Uuid {
    // Version 7: new rows go to the end of the clustered index, where random ids would split pages all over it.
    Uuid::now_v7()
}

/// When a `UUIDv7` was created, by the clock of its process; none for an id of another kind.
pub fn created_at(id: Uuid) -> Option<Timestamp> {
    let (seconds, nanoseconds) = id.get_timestamp()?.to_unix();
    Some(from_millis(i64::try_from(seconds).ok()? * 1_000 + i64::from(nanoseconds / 1_000_000)))
}

/// The lowest `UUIDv7` of that millisecond.
pub fn first_uuid_at(time: Timestamp) -> Uuid {
    let millis = u128::try_from(time.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128(millis << 80 | 0x7000_8000_0000_0000_0000)
}

/// A number below `bound` that cannot be predicted.
pub fn random_below(bound: u16) -> u16 {
    fastrand::u16(..bound.max(1))
}

/// A partition's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Partition(pub u16);

impl Partition {
    /// Where the commands of a user go, when there are `partitions`.
    pub fn of_user(user: UserId, partitions: u16) -> Self {
        // Neighbouring ids are spread evenly by what is left of the division.
        Self(u16::try_from(user.get() % u64::from(partitions.max(1))).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_positive_and_exact_in_json() {
        assert!(UserId::try_from(0).is_err());
        assert!(UserId::try_from(MAX_ID + 1).is_err());
        assert_eq!(UserId::try_from(MAX_ID).map(UserId::get), Ok(MAX_ID));
    }

    #[test]
    fn a_uuid_has_one_spelling() {
        let id = ClaimId::generate();
        let simple = id.0.simple().to_string();
        assert_eq!(parse_uuid(&id.to_string()), Some(id.0));
        let others = [format!("{{{id}}}"), format!("urn:uuid:{id}"), id.to_string().to_uppercase(), simple];
        for other in others {
            assert_eq!(parse_uuid(&other), None, "{other}");
            assert!(serde_json::from_value::<ClaimId>(other.into()).is_err());
        }
    }

    #[test]
    fn the_first_id_of_a_moment_is_lower_than_those_made_then() {
        let id = new_uuid();
        let made = created_at(id).expect("a time");
        assert!(first_uuid_at(made) <= id && id < first_uuid_at(made + chrono::TimeDelta::milliseconds(1)));
        assert_eq!(created_at(first_uuid_at(made)), Some(made));
    }

    #[test]
    fn ids_made_later_sort_later() {
        let (first, second) = (ClaimId::generate(), ClaimId::generate());
        assert!(first < second);
    }
}
