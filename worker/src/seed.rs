//! Demo data: a campaign and products.

use chrono::TimeDelta;
use dibs_common::{
    clock,
    config::Settings,
    db::{self, Database},
    domain::{
        admin_action::ActionContext,
        campaign::{CampaignTerms, Discount, DiscountType, Validity},
        product::{ProductStatus, ProductTerms},
    },
    error::Result,
    identifiers::{CouponId, new_uuid},
};

/// Creates a campaign when none is open, and products when there are none. Returns an open campaign.
pub async fn seed(settings: &Settings, database: &Database) -> Result<CouponId> {
    let now = clock::now();
    let pool = &database.pool();
    if !db::within(db::products::exist(pool)).await? {
        for number in 1..=20_i64 {
            let name = format!("Product {number}");
            let terms = ProductTerms {
                name,
                price: number * 1_000,
                stock: 10_000,
                status: ProductStatus::Selling,
                payment_required: false,
            };
            db::products::create(database, &terms, &ActionContext::of_process("dibs-worker seed", new_uuid(), now))
                .await?;
        }
    }
    let alive = db::within(db::campaigns::list_not_ended(pool, now, None, 100)).await?;
    if let Some(open) = alive.iter().find(|campaign| campaign.terms.opens_at <= now) {
        return Ok(open.id);
    }
    let terms = CampaignTerms {
        name: "First come, first served".into(),
        discount: Discount { kind: DiscountType::Percent, value: 10, max_amount: Some(5_000) },
        minimum_order_amount: 10_000,
        total_quantity: 10_000,
        per_user_limit: 1,
        opens_at: now,
        closes_at: now + TimeDelta::days(30),
        validity: Validity::Days(30),
    };
    let created = db::within(async {
        let mut connection = pool.acquire().await?;
        db::campaigns::create(&mut connection, &terms, settings.choose_partition(), new_uuid(), now).await
    });
    created.await.map(|created| created.id)
}
