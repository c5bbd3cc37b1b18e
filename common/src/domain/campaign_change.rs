//! Changes of a campaign by an administrator, before, while and after it runs.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    FieldError,
    admin_action::ChangedFields,
    campaign::{Campaign, CampaignState, CampaignTerms, Validity},
};
use crate::clock::Timestamp;

/// The terms of a campaign to change; those that are left out stay. Coupons that are issued keep the terms they have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CampaignPatch {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
    /// The smallest order total, in won, that the coupon can be used on.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub minimum_order_amount: Option<i64>,
    /// Up, or down to what is claimed.
    #[schema(minimum = 1, maximum = 4_000_000_000_u64)]
    pub total_quantity: Option<u32>,
    /// From then on claims are accepted.
    #[serde(default, deserialize_with = "crate::json::optional_time", serialize_with = "crate::clock::serialize")]
    pub opens_at: Option<DateTime<Utc>>,
    /// From then on they are not.
    #[serde(default, deserialize_with = "crate::json::optional_time", serialize_with = "crate::clock::serialize")]
    pub closes_at: Option<DateTime<Utc>>,
    /// How long a coupon that is issued from now on can be used.
    pub validity: Option<Validity>,
}

/// What an administrator changes of a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CampaignChange {
    Terms(CampaignPatch),
    Pause,
    /// The opposite of a pause.
    Resume,
    /// For good.
    Close,
}

/// Why a change cannot be applied to a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CampaignChangeRejectReason {
    Invalid(Vec<FieldError>),
    /// An administrator has closed it.
    Closed,
}

impl CampaignChange {
    /// As `admin_actions.action` spells it.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Terms(_) => "campaign.change",
            Self::Pause => "campaign.pause",
            Self::Resume => "campaign.resume",
            Self::Close => "campaign.close",
        }
    }

    /// The campaign after the change, with the next revision. The same campaign when nothing changes.
    ///
    /// Whether a lower quantity covers the accepted claims is for Redis to decide, which counts them.
    pub fn apply(&self, campaign: &Campaign, now: Timestamp) -> Result<Campaign, CampaignChangeRejectReason> {
        let state = match self {
            Self::Terms(_) => campaign.state,
            Self::Pause => CampaignState::Paused,
            Self::Resume => CampaignState::Active,
            Self::Close => CampaignState::Closed,
        };
        if campaign.state == CampaignState::Closed && *self != Self::Close {
            return Err(CampaignChangeRejectReason::Closed);
        }
        let terms = match self {
            Self::Terms(patch) => patch.apply(&campaign.terms, now).map_err(CampaignChangeRejectReason::Invalid)?,
            _ => campaign.terms.clone(),
        };
        let is_changed = (state, &terms) != (campaign.state, &campaign.terms);
        Ok(Campaign { state, terms, revision: campaign.revision + u32::from(is_changed), ..campaign.clone() })
    }
}

impl CampaignPatch {
    fn apply(&self, terms: &CampaignTerms, now: Timestamp) -> Result<CampaignTerms, Vec<FieldError>> {
        if *self == Self::default() {
            let fields = "name, minimumOrderAmount, totalQuantity, opensAt, closesAt, validity";
            return Err(vec![FieldError::new(".", format!("expected at least one of {fields}"))]);
        }
        let patch = self.clone();
        let changed = CampaignTerms {
            name: patch.name.unwrap_or_else(|| terms.name.clone()),
            minimum_order_amount: patch.minimum_order_amount.unwrap_or(terms.minimum_order_amount),
            total_quantity: patch.total_quantity.unwrap_or(terms.total_quantity),
            opens_at: patch.opens_at.unwrap_or(terms.opens_at),
            closes_at: patch.closes_at.unwrap_or(terms.closes_at),
            validity: patch.validity.unwrap_or(terms.validity),
            discount: terms.discount,
            per_user_limit: terms.per_user_limit,
        }
        .normalized();
        // A window that is over may stay as it is: the name of an old campaign can still be corrected.
        let mut errors = changed.errors();
        if errors.is_empty() {
            errors.extend(self.closes_at.and_then(|_| changed.window_error(now)));
            errors.extend(self.minimum_order_amount.and_then(|_| changed.minimum_error()));
        }
        if errors.is_empty() { Ok(changed) } else { Err(errors) }
    }
}

/// The fields in which two versions of a campaign differ.
pub fn differences(before: &Campaign, after: &Campaign) -> ChangedFields {
    ChangedFields::between(&Fields::of(before), &Fields::of(after))
}

/// What administrators change of a campaign.
#[derive(Serialize)]
struct Fields<'c> {
    #[serde(flatten)]
    terms: &'c CampaignTerms,
    state: CampaignState,
}

impl<'c> Fields<'c> {
    const fn of(campaign: &'c Campaign) -> Self {
        Self { terms: &campaign.terms, state: campaign.state }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::from_millis,
        domain::campaign::tests::terms,
        identifiers::{CouponId, Partition},
    };

    fn campaign(state: CampaignState) -> Campaign {
        Campaign {
            id: CouponId::try_from(1).expect("an id"),
            terms: terms(),
            partition: Partition(0),
            state,
            revision: 7,
            issued: 0,
            revoked: 0,
            rejected: 0,
            epoch: crate::domain::event::Epoch::default(),
            enforced_since: None,
        }
    }

    fn quantity(total_quantity: u32) -> CampaignChange {
        CampaignChange::Terms(CampaignPatch { total_quantity: Some(total_quantity), ..CampaignPatch::default() })
    }

    #[test]
    fn what_is_left_out_stays_and_the_revision_counts_changes() {
        let before = campaign(CampaignState::Active);
        let now = from_millis(1_500_000);
        let after = quantity(20).apply(&before, now).expect("valid");
        assert_eq!(after.terms, CampaignTerms { total_quantity: 20, ..terms() });
        assert_eq!((after.revision, after.state), (8, CampaignState::Active));
        assert_eq!(quantity(10).apply(&before, now).expect("valid").revision, 7, "nothing changes");
        let json = serde_json::to_value(differences(&before, &after)).expect("JSON");
        assert_eq!(json, serde_json::json!({ "before": { "totalQuantity": 10 }, "after": { "totalQuantity": 20 } }));
    }

    #[test]
    fn a_closed_campaign_stays_closed() {
        let closed = campaign(CampaignState::Closed);
        let now = from_millis(0);
        for change in [CampaignChange::Pause, CampaignChange::Resume, quantity(20)] {
            assert_eq!(change.apply(&closed, now).err(), Some(CampaignChangeRejectReason::Closed));
        }
        assert_eq!(CampaignChange::Close.apply(&closed, now).expect("closed").revision, 7);
        let paused = CampaignChange::Pause.apply(&campaign(CampaignState::Active), now).expect("paused");
        assert_eq!(CampaignChange::Resume.apply(&paused, now).expect("resumed").state, CampaignState::Active);
    }

    #[test]
    fn changed_terms_are_checked_together_with_those_that_stay() {
        let wrong = |patch: CampaignPatch, now| match CampaignChange::Terms(patch)
            .apply(&campaign(CampaignState::Active), from_millis(now))
        {
            Err(CampaignChangeRejectReason::Invalid(errors)) => {
                errors.into_iter().map(|error| error.field.into_owned()).collect()
            }
            other => vec![format!("{other:?}")],
        };
        let empty = CampaignPatch::default;
        assert_eq!(wrong(empty(), 0), ["."]);
        assert_eq!(wrong(CampaignPatch { opens_at: Some(from_millis(3_000_000)), ..empty() }, 0), ["closesAt"]);
        assert_eq!(
            wrong(CampaignPatch { closes_at: Some(from_millis(1_800_000)), ..empty() }, 1_900_000),
            ["closesAt"]
        );
        assert_eq!(wrong(CampaignPatch { total_quantity: Some(0), ..empty() }, 0), ["totalQuantity"]);
        let until = Validity::Until(from_millis(1_999_999));
        assert_eq!(wrong(CampaignPatch { validity: Some(until), ..empty() }, 0), ["validity.until"]);
    }

    proptest! {
        /// Whatever is changed in whatever order: terms stay valid, a revision is used once, closed is for good.
        #[test]
        fn a_sequence_of_changes_keeps_the_rules(steps in prop::collection::vec((0_u8..5, 0_u32..5, 900_000_i64..2_100_000), 0..30)) {
            let mut current = campaign(CampaignState::Active);
            for (kind, number, time) in steps {
                let change = match kind {
                    0 => CampaignChange::Pause,
                    1 => CampaignChange::Resume,
                    2 if number == 0 => CampaignChange::Close,
                    3 => CampaignChange::Terms(CampaignPatch { closes_at: Some(from_millis(time)), ..CampaignPatch::default() }),
                    _ => quantity(number),
                };
                if let Ok(next) = change.apply(&current, from_millis(1_000_000)) {
                    prop_assert_eq!(next.terms.errors(), vec![]);
                    let is_changed = (&next.terms, next.state) != (&current.terms, current.state);
                    prop_assert_eq!(next.revision, current.revision + u32::from(is_changed));
                    prop_assert!(current.state != CampaignState::Closed || !is_changed);
                    current = next;
                }
            }
        }
    }
}
