//! The only place that spells a Redis key.
//!
//! A campaign's keys and its stream carry the hash tag of its partition, `{p0}` .. `{pN-1}`, and so share one
//! slot of a cluster: one script may touch them all. A prefix keeps several installations, and tests, apart.

use serde::Serialize;

use crate::identifiers::CouponId;

/// The consumer group that confirms claims.
pub const ISSUANCE_GROUP: &str = "issuance";

/// A partition's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Partition(pub u16);

/// Spells keys for one installation.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys that begin with `prefix`, which may be empty.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// What Redis holds of a campaign: a hash, see `lua/claim.lua`.
    pub fn campaign(&self, partition: Partition, coupon: CouponId) -> String {
        format!("{}{{p{}}}:campaign:{coupon}", self.prefix, partition.0)
    }

    /// Accepted claims of a campaign: a hash from user to records.
    pub fn claims(&self, partition: Partition, coupon: CouponId) -> String {
        format!("{}:claims", self.campaign(partition, coupon))
    }

    /// Claims that a rebuild gathers, before they become [`Keys::claims`] at once.
    pub fn staged_claims(&self, partition: Partition, coupon: CouponId, rebuild: uuid::Uuid) -> String {
        format!("{}:staged:{rebuild}", self.claims(partition, coupon))
    }

    /// The stream of accepted claims of a partition.
    pub fn claim_stream(&self, partition: Partition) -> String {
        format!("{}{{p{}}}:claims", self.prefix, partition.0)
    }

    /// Entries of [`Keys::claim_stream`] that failed again and again.
    pub fn dead_claims(&self, partition: Partition) -> String {
        format!("{}:dead", self.claim_stream(partition))
    }

    /// The channel on which a process hears of issuances that it waits for.
    pub fn answers(&self, process: uuid::Uuid) -> String {
        format!("{}answers:{process}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_campaign_share_the_hash_tag_of_its_partition() {
        let keys = Keys::new("shop:");
        let coupon = CouponId::try_from(7).expect("a valid id");
        let partition = Partition(3);
        let spelled = [
            keys.campaign(partition, coupon),
            keys.claims(partition, coupon),
            keys.staged_claims(partition, coupon, uuid::Uuid::nil()),
            keys.claim_stream(partition),
            keys.dead_claims(partition),
        ];
        assert!(spelled.iter().all(|key| key.starts_with("shop:{p3}:")), "{spelled:?}");
    }
}
