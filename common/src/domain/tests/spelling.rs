//! The spelling of every stored enum. Rows and stream entries hold these texts, so a change needs a migration.

use std::{fmt::Debug, str::FromStr};

use strum::VariantArray;
use uuid::Uuid;

use crate::{
    domain::{
        assignment::{AssignmentOutcome, AssignmentStatus},
        campaign::{CampaignState, CampaignStatus, DiscountType},
        charge::ChargeStatus,
        claim::ClaimRejectReason,
        dead_letter::DeadLetterStatus,
        event::Aggregate,
        facts::CouponRefusal,
        order::{CommandKind, CouponStatus, OrderStatus, PaymentStatus, RejectCode},
        points::LedgerType,
        product::ProductStatus,
        rebuild::RebuildStatus,
    },
    identifiers::OrderId,
};

/// The spellings of all variants, each read back.
fn spellings<T>() -> Vec<&'static str>
where
    T: VariantArray + FromStr + Into<&'static str> + Copy + PartialEq + Debug,
{
    let read_back = |variant: &T| {
        let spelling: &'static str = (*variant).into();
        assert_eq!(spelling.parse().ok(), Some(*variant), "{spelling}");
        assert!(spelling.to_lowercase().parse::<T>().is_err(), "{spelling}");
        spelling
    };
    T::VARIANTS.iter().map(read_back).collect()
}

#[test]
fn campaigns_and_claims_are_spelled_as_the_database_holds_them() {
    assert_eq!(spellings::<DiscountType>(), ["FIXED", "PERCENT"]);
    assert_eq!(spellings::<CampaignState>(), ["ACTIVE", "PAUSED", "CLOSED"]);
    assert_eq!(spellings::<CampaignStatus>(), ["SCHEDULED", "OPEN", "EXHAUSTED", "PAUSED", "CLOSED"]);
    let statuses = ["AWAITING_APPROVAL", "REJECTED", "EXPIRED", "PENDING", "DONE"];
    assert_eq!(spellings::<AssignmentStatus>(), statuses);
    assert_eq!(spellings::<RebuildStatus>(), ["PENDING", "DONE"]);
    assert_eq!(spellings::<DeadLetterStatus>(), ["DEAD", "REDRIVE", "SENT", "DROPPED"]);
    let claim_reject_reasons = [
        "COUPON_NOT_FOUND",
        "COUPON_ALREADY_ISSUED",
        "COUPON_EXHAUSTED",
        "CAMPAIGN_NOT_OPEN",
        "CAMPAIGN_PAUSED",
        "CAMPAIGN_CLOSED",
        "CLAIM_FAILED",
    ];
    assert_eq!(spellings::<ClaimRejectReason>(), claim_reject_reasons);
}

#[test]
fn assignment_outcomes_are_spelled_as_the_database_holds_them() {
    assert_eq!(<&str>::from(AssignmentOutcome::Issued), "ISSUED");
    for reason in ClaimRejectReason::VARIANTS {
        assert_eq!(<&str>::from(AssignmentOutcome::Rejected(*reason)), reason.into_str());
    }
}

#[test]
fn aggregates_are_spelled_as_the_database_holds_them() {
    let id = OrderId(Uuid::nil());
    assert_eq!(Aggregate::Order(id).into_str(), "ORDER");
    assert_eq!(Aggregate::Coupon(1.try_into().expect("an id")).into_str(), "COUPON");
    assert_eq!(Aggregate::Points(1.try_into().expect("an id")).into_str(), "POINTS");
    assert_eq!(Aggregate::Product(1.try_into().expect("an id")).into_str(), "PRODUCT");
}

#[test]
fn orders_are_spelled_as_the_database_holds_them() {
    let order_statuses = ["DEPOSIT_WAIT", "PAY_DONE", "BUY_CONFIRM", "CANCELLED", "EXPIRED", "REJECTED"];
    assert_eq!(spellings::<OrderStatus>(), order_statuses);
    assert_eq!(spellings::<CommandKind>(), ["PLACE", "PAY", "CONFIRM", "CANCEL", "EXPIRE"]);
    assert_eq!(spellings::<CouponStatus>(), ["ISSUED", "USED", "EXPIRED", "REVOKED"]);
    assert_eq!(spellings::<PaymentStatus>(), ["READY", "DONE", "FAIL", "CANCELLED"]);
    assert_eq!(spellings::<ProductStatus>(), ["SELLING", "STOPPED"]);
    let coupon_refusals = ["NOT_OWNED", "USED", "EXPIRED", "REVOKED", "MINIMUM_NOT_REACHED", "NO_DISCOUNT"];
    assert_eq!(spellings::<CouponRefusal>(), coupon_refusals);
    let reject_codes = [
        "PRODUCT_NOT_FOUND",
        "PRODUCT_NOT_SELLING",
        "STOCK_INSUFFICIENT",
        "COUPON_NOT_USABLE",
        "VALIDATION_FAILED",
        "PAYMENT_REQUIRED",
        "UNPAID_ORDERS_LIMIT_EXCEEDED",
        "UNPAID_UNITS_LIMIT_EXCEEDED",
        "POINTS_INSUFFICIENT",
        "POINTS_CAP_EXCEEDED",
        "ORDER_NOT_FOUND",
        "ORDER_STATE_CONFLICT",
        "COMMAND_FAILED",
    ];
    assert_eq!(spellings::<RejectCode>(), reject_codes);
}

#[test]
fn points_are_spelled_as_the_database_holds_them() {
    assert_eq!(spellings::<ChargeStatus>(), ["PENDING", "APPROVED", "DECLINED"]);
    assert_eq!(spellings::<LedgerType>(), ["CHARGE", "PAYMENT", "REFUND", "GRANT", "DEDUCTION"]);
}
