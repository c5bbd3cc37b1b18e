use std::collections::{HashMap, HashSet};

use dibs_common::{
    audit, clock,
    db::Database,
    domain::audit::{ClaimDifference, DifferenceKind, FieldDifference, NAMED_DIFFERENCES},
    error::Result,
    identifiers::{ClaimId, CouponId},
    metric_table::label,
};
use metrics::{counter, gauge};
use serde::Serialize;
use strum::VariantArray as _;

/// How a campaign differed when it was last compared.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Drift {
    pub fields: Vec<FieldDifference>,
    pub claims: Vec<ClaimDifference>,
}

impl Drift {
    pub(super) fn is_none(&self) -> bool {
        self.fields.is_empty() && self.claims.is_empty()
    }

    fn count(&self, kind: DifferenceKind) -> usize {
        let fields = self.fields.iter().filter(|difference| difference.kind == kind).count();
        fields + self.claims.iter().filter(|difference| difference.kind == kind).count()
    }

    /// What `before` does not have.
    fn without(&self, before: &Self) -> Self {
        let known: HashSet<_> = before.claims.iter().map(key).collect();
        let claims = self.claims.iter().filter(|difference| !known.contains(&key(difference))).cloned();
        let is_known = |field: &FieldDifference| before.fields.iter().any(|known| known.field == field.field);
        let fields = self.fields.iter().filter(|field| !is_known(field)).cloned();
        Self { fields: fields.collect(), claims: claims.collect() }
    }
}

fn key(difference: &ClaimDifference) -> (DifferenceKind, u64, Option<ClaimId>) {
    (difference.kind, difference.user_id.get(), difference.claim_id)
}

/// The drifts that are named, each once.
pub(super) struct NamedDrifts {
    database: Database,
    drifts: HashMap<CouponId, Drift>,
}

impl NamedDrifts {
    pub(super) fn new(database: Database) -> Self {
        Self { database, drifts: HashMap::new() }
    }

    /// Names what is new: in the log, and as an event.
    pub(super) async fn name(&mut self, coupon: CouponId, drift: Drift) -> Result<()> {
        let before = self.drifts.get(&coupon).cloned().unwrap_or_default();
        let new = drift.without(&before);
        if !new.is_none() {
            audit::report_drift(&self.database, coupon, &new.fields, &new.claims, clock::now()).await?;
            log(coupon, &new);
        }
        if drift.is_none() && !before.is_none() {
            tracing::info!(%coupon, "campaign drift resolved");
        }
        // Only now: a difference whose event could not be inserted is new in the next round as well.
        self.drifts.insert(coupon, drift);
        Ok(())
    }

    /// Forgets campaigns that are no longer compared.
    pub(super) fn retain(&mut self, compared: &HashSet<CouponId>) {
        self.drifts.retain(|coupon, _| compared.contains(coupon));
    }

    pub(super) fn export(&self) {
        for kind in DifferenceKind::VARIANTS {
            let count: usize = self.drifts.values().map(|drift| drift.count(*kind)).sum();
            set(*kind, count);
        }
    }

    pub(super) fn forget(&mut self) {
        self.drifts.clear();
        self.export();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge may be off by one above 2^53")]
fn set(kind: DifferenceKind, count: usize) {
    gauge!("dibs_campaign_drift", "kind" => label(kind.into_str())).set(count as f64);
}

fn log(coupon: CouponId, drift: &Drift) {
    for difference in &drift.fields {
        let FieldDifference { kind, field, found, expected } = difference;
        detected(*kind);
        let kind = kind.into_str();
        tracing::warn!(%coupon, kind, field, found, expected, "campaign drift detected");
    }
    for (place, difference) in drift.claims.iter().enumerate() {
        detected(difference.kind);
        if place < NAMED_DIFFERENCES {
            let ClaimDifference { kind, user_id: user, claim_id, .. } = difference;
            let claim = claim_id.map(|claim| claim.to_string());
            tracing::warn!(%coupon, kind = kind.into_str(), %user, claim, "campaign drift detected");
        }
    }
    if drift.claims.len() > NAMED_DIFFERENCES {
        let claims = drift.claims.len();
        tracing::warn!(%coupon, claims, "campaign drift detected; the audit lists all");
    }
}

fn detected(kind: DifferenceKind) {
    counter!("dibs_campaign_drift_total", "kind" => label(kind.into_str())).increment(1);
}
