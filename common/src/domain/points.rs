//! The points of a user: balance, pending charges, ledger. Amounts are won.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

/// The points of one user. Always `0 <= balance`, `0 <= pending`, and `balance + pending` within the holding cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The sum of the user's rows in the ledger.
    pub balance: i64,
    /// Charges without a decision of the payment gateway. They count against the cap, so that an approved charge can
    /// always be credited.
    pub pending: i64,
}

/// Settings of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointRules {
    pub charge_minimum: i64,
    /// The most that a user may hold.
    pub holding_cap: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChargeRejectReason {
    BelowMinimum(i64),
    CapExceeded {
        cap: i64,
        /// Balance and pending charges.
        held: i64,
    },
}

/// What moved points, as a row of the ledger names it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum LedgerType {
    /// Points that were bought came in.
    Charge,
    /// An order was paid.
    Payment,
    /// A paid order was cancelled.
    Refund,
    /// An administrator gave points.
    Grant,
    /// An administrator took points back.
    Deduction,
}

/// Why an administrator cannot change the points of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdjustmentRejectReason {
    CapExceeded {
        cap: i64,
        /// Balance and pending charges.
        held: i64,
    },
    Insufficient {
        balance: i64,
    },
}

impl PointRules {
    /// Rejects an amount that no user may charge.
    pub const fn check(self, amount: i64) -> Result<(), ChargeRejectReason> {
        if amount < self.charge_minimum || amount <= 0 {
            return Err(ChargeRejectReason::BelowMinimum(self.charge_minimum));
        }
        Ok(())
    }
}

impl Account {
    /// What the cap limits: balance and pending charges.
    pub const fn held(self) -> i64 {
        self.balance.saturating_add(self.pending)
    }

    /// The account with a pending charge of `amount`.
    pub fn begin(self, amount: i64, rules: PointRules) -> Result<Self, ChargeRejectReason> {
        rules.check(amount)?;
        if !self.has_room(amount, rules.holding_cap) {
            return Err(ChargeRejectReason::CapExceeded { cap: rules.holding_cap, held: self.held() });
        }
        Ok(Self { pending: self.pending + amount, ..self })
    }

    /// The account with a pending charge of `amount` credited; none when no such amount is pending.
    ///
    /// The cap was checked when the charge began. It may have been lowered since; the user has paid and gets the
    /// points.
    #[must_use]
    pub fn approve(self, amount: i64) -> Option<Self> {
        let declined = self.decline(amount)?;
        Some(Self { balance: declined.balance.checked_add(amount)?, ..declined })
    }

    /// The account without a pending charge of `amount`; none when no such amount is pending.
    #[must_use]
    pub fn decline(self, amount: i64) -> Option<Self> {
        (0..=self.pending).contains(&amount).then(|| Self { pending: self.pending - amount, ..self })
    }

    /// The account with `amount` spent; none when that is more than the balance.
    #[must_use]
    pub fn pay(self, amount: i64) -> Option<Self> {
        (0..=self.balance).contains(&amount).then(|| Self { balance: self.balance - amount, ..self })
    }

    /// The account with `amount` refunded; none when that exceeds `cap`.
    #[must_use]
    pub fn refund(self, amount: i64, cap: i64) -> Option<Self> {
        // A refund of 0 always fits, also above a cap that was lowered.
        let fits = amount == 0 || (amount > 0 && self.has_room(amount, cap));
        fits.then(|| Self { balance: self.balance + amount, ..self })
    }

    /// The account with `amount` granted when it is positive, taken back when it is negative.
    pub fn adjust(self, amount: i64, cap: i64) -> Result<Self, AdjustmentRejectReason> {
        let adjusted = if amount > 0 {
            self.refund(amount, cap)
        } else {
            amount.checked_neg().and_then(|amount| self.pay(amount))
        };
        adjusted.ok_or(if amount > 0 {
            AdjustmentRejectReason::CapExceeded { cap, held: self.held() }
        } else {
            AdjustmentRejectReason::Insufficient { balance: self.balance }
        })
    }

    fn has_room(self, amount: i64, cap: i64) -> bool {
        // Checked: an amount near the largest number must not wrap around to one that fits.
        self.held().checked_add(amount).is_some_and(|held| held <= cap)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::campaign::MAX_AMOUNT;

    const RULES: PointRules = PointRules { charge_minimum: 10_000, holding_cap: 100_000 };

    fn account(balance: i64, pending: i64) -> Account {
        Account { balance, pending }
    }

    #[test]
    fn a_charge_below_the_minimum_is_refused() {
        for amount in [i64::MIN, -10_000, -1, 0, 1, 9_999] {
            assert_eq!(account(0, 0).begin(amount, RULES), Err(ChargeRejectReason::BelowMinimum(10_000)), "{amount}");
        }
        assert_eq!(account(0, 0).begin(10_000, RULES), Ok(account(0, 10_000)));
        let without_minimum = PointRules { charge_minimum: 0, ..RULES };
        assert!(account(0, 0).begin(0, without_minimum).is_err());
    }

    #[test]
    fn balance_and_pending_charges_count_against_the_cap() {
        assert_eq!(account(50_000, 40_000).begin(10_000, RULES), Ok(account(50_000, 50_000)));
        let refused = account(50_000, 40_000).begin(10_001, RULES);
        assert_eq!(refused, Err(ChargeRejectReason::CapExceeded { cap: 100_000, held: 90_000 }));
    }

    #[test]
    fn no_amount_overflows() {
        let rules = PointRules { charge_minimum: 1, holding_cap: MAX_AMOUNT };
        let full = account(MAX_AMOUNT, 0);
        for amount in [1, MAX_AMOUNT, i64::MAX] {
            assert!(full.begin(amount, rules).is_err(), "{amount}");
            assert_eq!(full.refund(amount, MAX_AMOUNT), None, "{amount}");
        }
        assert!(account(i64::MAX, i64::MAX).begin(i64::MAX, rules).is_err());
    }

    #[test]
    fn only_a_pending_amount_is_credited_or_declined() {
        assert_eq!(account(5, 10).approve(10), Some(account(15, 0)));
        assert_eq!(account(5, 10).decline(10), Some(account(5, 0)));
        for amount in [11, -1, i64::MIN, i64::MAX] {
            assert_eq!((account(5, 10).approve(amount), account(5, 10).decline(amount)), (None, None), "{amount}");
        }
    }

    #[test]
    fn a_payment_is_within_the_balance_and_a_refund_within_the_cap() {
        assert_eq!(account(5, 10).pay(5), Some(account(0, 10)));
        assert_eq!(account(5, 10).pay(6), None);
        assert_eq!(account(5, 10).pay(-1), None);
        assert_eq!(account(5, 10).refund(5, 20), Some(account(10, 10)));
        assert_eq!(account(5, 10).refund(6, 20), None);
        assert_eq!(account(5, 10).refund(-1, 20), None);
        assert_eq!(account(5, 10).refund(0, 1), Some(account(5, 10)), "a refund of 0 always fits");
    }

    #[test]
    fn an_adjustment_is_within_the_cap_and_the_balance() {
        assert_eq!(account(5, 10).adjust(5, 20), Ok(account(10, 10)));
        assert_eq!(account(5, 10).adjust(6, 20), Err(AdjustmentRejectReason::CapExceeded { cap: 20, held: 15 }));
        assert_eq!(account(5, 10).adjust(-5, 1), Ok(account(0, 10)));
        for amount in [-6, i64::MIN] {
            let refused = account(5, 10).adjust(amount, 20);
            assert_eq!(refused, Err(AdjustmentRejectReason::Insufficient { balance: 5 }), "{amount}");
        }
        assert!(account(5, 10).adjust(i64::MAX, 20).is_err());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Begin(i64),
        Approve(usize),
        Decline(usize),
        Pay(i64),
        Refund(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let amount = prop_oneof![-20_000..120_000_i64, Just(i64::MAX), Just(i64::MIN)];
        prop_oneof![
            amount.clone().prop_map(Step::Begin),
            (0..8_usize).prop_map(Step::Approve),
            (0..8_usize).prop_map(Step::Decline),
            amount.clone().prop_map(Step::Pay),
            amount.prop_map(Step::Refund),
        ]
    }

    proptest! {
        /// I6 for any steps in any order: the balance is the sum of the ledger, nothing is below zero or above the
        /// cap, and a charge that began can always be credited.
        #[test]
        fn i6_any_steps_keep_the_balance_within_the_cap_and_equal_to_the_ledger(
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let (mut account, mut ledger, mut charges) = (Account::default(), Vec::new(), Vec::new());
            for step in steps {
                let next = match step {
                    Step::Begin(amount) => account.begin(amount, RULES).ok().inspect(|_| charges.push(amount)),
                    Step::Approve(place) if place < charges.len() => {
                        let amount = charges.swap_remove(place);
                        ledger.push(amount);
                        let approved = account.approve(amount);
                        prop_assert!(approved.is_some(), "an approved charge is credited");
                        approved
                    }
                    Step::Decline(place) if place < charges.len() => account.decline(charges.swap_remove(place)),
                    Step::Approve(_) | Step::Decline(_) => None,
                    Step::Pay(amount) => account.pay(amount).inspect(|_| ledger.push(-amount)),
                    Step::Refund(amount) => {
                        account.refund(amount, RULES.holding_cap).inspect(|_| ledger.push(amount))
                    }
                };
                account = next.unwrap_or(account);
                prop_assert_eq!(account.balance, ledger.iter().sum::<i64>());
                prop_assert_eq!(account.pending, charges.iter().sum::<i64>());
                prop_assert!(account.balance >= 0 && account.pending >= 0 && account.held() <= RULES.holding_cap);
            }
        }
    }
}
