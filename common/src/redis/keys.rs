//! The only place that spells a Redis key.
//!
//! A campaign's keys and its stream carry the hash tag of its partition, `{p0}` .. `{pN-1}`, and so share one slot of a
//! cluster: one script may touch them all. So do all keys of sales, whose tag is `{sales}`. A prefix keeps several
//! installations, and tests, apart.

use chrono::NaiveDate;

use crate::identifiers::{CommandId, CouponId, Partition, ProductId};

/// The consumer group that confirms claims.
pub const ISSUANCE_GROUP: &str = "issuance";

/// The consumer group that executes commands.
pub const ORDERS_GROUP: &str = "orders";

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

    /// The terms and counts of a campaign: a hash, see `lua/claim.lua`.
    pub fn campaign(&self, partition: Partition, coupon: CouponId) -> String {
        // The braces are the hash tag: only the text between them decides the slot.
        format!("{}{{p{}}}:campaign:{coupon}", self.prefix, partition.0)
    }

    /// Accepted claims of a campaign: a hash from user to records.
    pub fn claims(&self, partition: Partition, coupon: CouponId) -> String {
        format!("{}:claims", self.campaign(partition, coupon))
    }

    /// Claims that a rebuild gathers page by page, before a script renames them to [`Keys::claims`].
    pub fn staged_claims(&self, partition: Partition, coupon: CouponId, rebuild: uuid::Uuid) -> String {
        format!("{}:staged:{rebuild}", self.claims(partition, coupon))
    }

    /// What one client has claimed of late: a string, see `lua/rate_limit.lua`. `scope` is what is counted by.
    pub fn rate_limit(&self, scope: &str, client: impl std::fmt::Display) -> String {
        // One tag for all: a call counts many clients.
        format!("{}{{limits}}:{scope}:{client}", self.prefix)
    }

    /// The stream of accepted claims of a partition.
    pub fn claim_stream(&self, partition: Partition) -> String {
        format!("{}{{p{}}}:claims", self.prefix, partition.0)
    }

    /// The stream of commands of a partition's users.
    pub fn order_stream(&self, partition: Partition) -> String {
        format!("{}{{p{}}}:orders", self.prefix, partition.0)
    }

    /// A command whose caller did not wait for its outcome: a string, for a day.
    pub fn pending_command(&self, command: CommandId) -> String {
        // Without a hash tag: no script joins it with other keys, so a cluster may spread them.
        format!("{}pending:{command}", self.prefix)
    }

    /// The position up to which sales are counted: a string, see `lua/sales_apply.lua`.
    pub fn sales_applied(&self) -> String {
        format!("{}{{sales}}:applied", self.prefix)
    }

    /// The position of each partition of a topic in Kafka: a hash, see `lua/sales_count.lua`.
    pub fn sales_counted(&self) -> String {
        format!("{}{{sales}}:counted", self.prefix)
    }

    /// Units sold on a business day: a sorted set by [`sales_member`].
    pub fn daily_sales(&self, day: NaiveDate) -> String {
        format!("{}{{sales}}:daily:{day}", self.prefix)
    }

    /// Where a rebuild writes a day or window of sales page by page, before a script renames it to `key`.
    pub fn staged(&self, key: &str, rebuild: uuid::Uuid) -> String {
        format!("{key}:staged:{rebuild}")
    }

    /// Units sold on the last `days` days, negative: a sorted set, see `lua/shared/sales_show.lua`.
    pub fn sales_window(&self, days: u8) -> String {
        format!("{}{{sales}}:window:{days}", self.prefix)
    }

    /// The days of [`Keys::sales_window`], and when it changed last: a hash.
    pub fn sales_window_info(&self, days: u8) -> String {
        format!("{}:made", self.sales_window(days))
    }

    /// The newest build of the windows, while it runs: a string, see `lua/sales_build_begin.lua`.
    pub fn sales_building(&self) -> String {
        format!("{}{{sales}}:building", self.prefix)
    }

    /// The products whose sales changed since that build began: a set of [`sales_member`].
    pub fn sales_changed(&self) -> String {
        format!("{}{{sales}}:changed", self.prefix)
    }

    /// How far `MySQL` was when a worker looked last: a string, see `lua/remember_position.lua`.
    pub fn database_position(&self) -> String {
        format!("{}database:position", self.prefix)
    }

    /// The last report of each process: a hash from process to JSON.
    pub fn live_processes(&self) -> String {
        format!("{}live:processes", self.prefix)
    }

    /// What was counted of a campaign in a minute since 1970: a hash, see `common/src/live/series.rs`.
    pub fn live_campaign(&self, coupon: CouponId, minute: i64) -> String {
        format!("{}live:campaign:{coupon}:{minute}", self.prefix)
    }

    /// How the drift check found a campaign: a string.
    pub fn live_drift(&self, coupon: CouponId) -> String {
        format!("{}live:drift:{coupon}", self.prefix)
    }

    /// A test message that a receiver is to get: a string.
    pub fn delivery_test(&self, sink: &str) -> String {
        format!("{}delivery:test:{sink}", self.prefix)
    }

    /// How the last test message went: a string.
    pub fn delivery_tested(&self, sink: &str) -> String {
        format!("{}delivery:tested:{sink}", self.prefix)
    }

    /// A session of the console, by the hash of its id: a string.
    pub fn console_session(&self, hash: &str) -> String {
        format!("{}console:session:{hash}", self.prefix)
    }

    /// The channel on which a process hears of outcomes that it waits for.
    pub fn reply_channel(&self, process: uuid::Uuid) -> String {
        format!("{}outcomes:{process}", self.prefix)
    }
}

/// The member of a product in a sorted set of sales: its id in 16 digits, so that members with equal scores are in the
/// order of ids.
pub fn sales_member(product: ProductId) -> String {
    format!("{:016}", product.get())
}

/// The product of a member; none when it is invalid.
pub fn product_of_member(member: &str) -> Option<ProductId> {
    member.parse::<u64>().ok()?.try_into().ok()
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
            keys.order_stream(partition),
        ];
        assert!(spelled.iter().all(|key| key.starts_with("shop:{p3}:")), "{spelled:?}");
    }

    #[test]
    fn all_keys_of_sales_share_a_hash_tag() {
        let (keys, day) = (Keys::new("shop:"), NaiveDate::default());
        let spelled = [
            keys.sales_applied(),
            keys.sales_counted(),
            keys.daily_sales(day),
            keys.staged(&keys.daily_sales(day), uuid::Uuid::nil()),
            keys.sales_window(3),
            keys.sales_window_info(3),
            keys.sales_building(),
            keys.sales_changed(),
        ];
        assert!(spelled.iter().all(|key| key.starts_with("shop:{sales}:")), "{spelled:?}");
        assert_eq!(keys.daily_sales(day), "shop:{sales}:daily:1970-01-01");
        let product = ProductId::try_from(crate::identifiers::MAX_ID).expect("an id");
        assert_eq!(product_of_member(&sales_member(product)), Some(product));
    }
}
