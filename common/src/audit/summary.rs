use serde::Serialize;
use utoipa::ToSchema;

use super::{Comparison, is_held, visit_unanswered};
use crate::{
    clock,
    db::{self, audits::COUNT_TIMEOUT},
    domain::{
        audit::{DifferenceKind, FieldDifference},
        campaign::Campaign,
    },
    error::{Error, Result},
    redis::{
        campaign_state::{self, RECONCILED_AFTER_END},
        claim_records,
        streams::{self, ClaimEntry},
    },
};

/// The terms and counts of both sides.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditSummary {
    /// What Redis counts; left out while Redis does not hold the campaign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisCounts>,
    pub mysql: MysqlCounts,
    pub stream: StreamCounts,
    /// Whether no claim was decided while this was read. Otherwise the counts of Redis are not compared.
    pub is_at_rest: bool,
    /// Terms and counts that differ.
    pub differences: Vec<FieldDifference>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisCounts {
    /// Accepted claims.
    pub claimed: u32,
    /// The highest sequence of one.
    pub sequence: u32,
    /// Users with an accepted claim.
    pub holders: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MysqlCounts {
    /// Issued coupons, as the campaign counts them.
    pub issued_quantity: u32,
    /// Claims that were rejected after their acceptance, as the campaign counts them.
    pub rejected_quantity: u32,
    /// Rows of issued coupons.
    pub issuances: u64,
    /// Rows of rejected claims.
    pub rejections: u64,
}

/// The claim stream of the campaign's partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamCounts {
    /// Entries, also of other campaigns.
    pub entries: u64,
    /// Claims of this campaign that may have no outcome yet, on the stream and in dead letters; left out with more than
    /// 10,000 entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_their_way: Option<u64>,
}

/// Compares terms and counts. The rows are counted, which takes a fifth of a second for each million.
pub async fn summarize(comparison: Comparison<'_>) -> Result<AuditSummary> {
    let Comparison { database, redis, campaign, max_entries, .. } = comparison;
    let (partition, coupon) = (campaign.partition, campaign.id);
    let before = campaign_state::compare(redis, campaign).await?;
    let holders = claim_records::count_holders(redis, partition, coupon).await?;
    let entries = streams::len::<ClaimEntry>(redis, partition).await?;
    let mut on_their_way = None;
    if entries <= max_entries {
        let mut claims = 0;
        visit_unanswered(database, redis, campaign, |_| claims += 1).await?;
        on_their_way = Some(claims);
    }
    // After the stream: a claim that leaves it meanwhile is counted twice rather than not at all.
    let counted = db::within_limit(COUNT_TIMEOUT, db::audits::count_rows(&database.pool(), coupon)).await?;
    let counted = counted.ok_or(Error::CouponNotFound(coupon))?;
    let after = campaign_state::compare(redis, campaign).await?;
    let redis_counts = after.counts.filter(|_| is_held(campaign, &after));
    let summary = AuditSummary {
        redis: redis_counts.map(|(claimed, sequence)| RedisCounts { claimed, sequence, holders }),
        mysql: MysqlCounts {
            issued_quantity: counted.issued_quantity,
            rejected_quantity: counted.rejected_quantity,
            issuances: counted.issuances.unsigned_abs(),
            rejections: counted.rejections.unsigned_abs(),
        },
        stream: StreamCounts { entries, on_their_way },
        is_at_rest: before.counts == after.counts,
        differences: Vec::new(),
    };
    let mut differences = count_differences(campaign, &summary);
    if redis_counts.is_some() && after.different.is_empty() {
        return Ok(AuditSummary { differences, ..summary });
    }
    if redis_counts.is_some() {
        let terms = campaign_state::list_different_terms(redis, campaign).await?.into_iter();
        differences.extend(terms.map(|term| FieldDifference {
            kind: DifferenceKind::TermDiffers,
            field: term.field.into(),
            found: term.found,
            expected: term.expected,
        }));
    } else if clock::now() < campaign.terms.closes_at + RECONCILED_AFTER_END {
        differences.push(FieldDifference {
            kind: DifferenceKind::CampaignMissing,
            field: "campaign".into(),
            found: None,
            expected: format!("epoch {}", campaign.epoch),
        });
    }
    Ok(AuditSummary { differences, ..summary })
}

fn count_differences(campaign: &Campaign, summary: &AuditSummary) -> Vec<FieldDifference> {
    let mut differences = Vec::new();
    let mut compare = |field: &str, found: u64, expected: u64| {
        if found != expected {
            differences.push(FieldDifference {
                kind: DifferenceKind::CountDiffers,
                field: field.into(),
                found: Some(found.to_string()),
                expected: expected.to_string(),
            });
        }
    };
    let MysqlCounts { issued_quantity, rejected_quantity, issuances, rejections } = summary.mysql;
    compare("issuedQuantity", issued_quantity.into(), issuances);
    compare("rejectedQuantity", rejected_quantity.into(), rejections);
    if let Some(RedisCounts { claimed, holders, .. }) = summary.redis.filter(|_| summary.is_at_rest) {
        let claimed = u64::from(claimed);
        if campaign.terms.per_user_limit == 1 {
            compare("holders", holders, claimed);
        }
        // Each claim on its way may have its coupon by now, so anything in between is right.
        let most = summary.stream.on_their_way.map_or(u64::MAX, |claims| issuances + claims);
        compare("claimed", claimed, claimed.clamp(issuances, most.max(issuances)));
    }
    differences
}
