//! Reconciles charges whose response from the payment gateway was lost: sends the request again until there is a
//! decision.
//!
//! A due charge is leased for a minute: when a worker dies meanwhile, the next one takes it after that. Two workers
//! that request the same charge do no harm, as the gateway knows it by its id and it is settled once.

use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database},
    domain::charge::{Charge, NewCharge},
    error::{Error, Result},
    integrations::payment_gateway::PaymentGateway,
    retry::{self, RetryPolicy},
};
use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Charges taken at once. With [`MAX_CONCURRENCY`] and the gateway's timeout, all are requested long before
/// [`LEASE_DURATION`] is over.
const BATCH_SIZE: u32 = 100;
const MAX_CONCURRENCY: usize = 8;
const LEASE_DURATION: TimeDelta = TimeDelta::minutes(1);
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// When a charge without a decision is requested again. Without jitter: charges fall due one by one anyway.
const RETRIES: RetryPolicy =
    RetryPolicy { jitter: 0, ..RetryPolicy::exponential(Duration::from_secs(1), Duration::from_mins(5)) };

#[derive(Clone)]
pub struct ChargeReconciler {
    pub database: Database,
    /// Without one, pending charges stay pending.
    pub gateway: Option<PaymentGateway>,
    pub stopping: CancellationToken,
}

impl ChargeReconciler {
    /// Reconciles what is due, about once a second, until the process stops.
    pub async fn run(self) {
        let mut rounds = retry::every(POLL_INTERVAL, &self.stopping);
        while rounds.next().await {
            if let Err(error) = self.reconcile_all_due().await {
                tracing::warn!(cause = error.chain(), "charge reconciliation failed; retrying");
            }
        }
    }

    async fn reconcile_all_due(&self) -> Result<()> {
        // After a full batch more may be due.
        while self.reconcile_due(clock::now()).await? == BATCH_SIZE as usize && !self.stopping.is_cancelled() {}
        Ok(())
    }

    /// Requests every charge that is due at `now` once, and settles those with a decision. Returns how many were due.
    /// When the process stops, it begins no further request.
    pub async fn reconcile_due(&self, now: Timestamp) -> Result<usize> {
        let Some(gateway) = &self.gateway else { return self.expect_none_pending().await };
        let leased = db::charges::take_due(&self.database, BATCH_SIZE, now, now + LEASE_DURATION).await?;
        let (count, began) = (leased.len(), Instant::now());
        stream::iter(leased)
            // What is not requested any more stays leased for a minute, and is then due for the next worker.
            .take_until(self.stopping.cancelled())
            .for_each_concurrent(MAX_CONCURRENCY, async |charge| {
                let reconciled = self.reconcile(gateway, &charge, || now + began.elapsed()).await;
                let outcome = reconciled.unwrap_or_else(|error| {
                    let charge = charge.wanted.id;
                    tracing::warn!(%charge, cause = error.chain(), "charge not reconciled; retrying");
                    "failed"
                });
                metrics::counter!("dibs_charge_reconciliations_total", "outcome" => outcome).increment(1);
            })
            .await;
        Ok(count)
    }

    /// Approving them here would credit points for charges that the gateway may yet decline.
    async fn expect_none_pending(&self) -> Result<usize> {
        let pending = db::within(db::charges::count_pending(&self.database.pool())).await?;
        if pending > 0 {
            tracing::warn!(pending, "charges are pending, but PAYMENT_GATEWAY_URL is not set");
        }
        Ok(0)
    }

    /// The outcome, as a label of the metric.
    async fn reconcile(
        &self,
        gateway: &PaymentGateway,
        charge: &Charge,
        now: impl Fn() -> Timestamp + Send,
    ) -> Result<&'static str> {
        let NewCharge { id, user, .. } = charge.wanted;
        let Some(decision) = gateway.charge(&charge.wanted).await else {
            let next = now() + RETRIES.delay_after(charge.attempts, 0);
            db::within(db::charges::postpone(&self.database.pool(), id, next)).await?;
            return Ok("unknown");
        };
        let settled = db::charges::settle(&self.database, id, user, decision, now()).await?;
        if settled.charge.status != decision.status() {
            return Err(Error::internal(format!(
                "the gateway decided {:?} of a charge that is {:?} already",
                decision.status(),
                settled.charge.status
            )));
        }
        Ok(decision.into_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_a_second_to_five_minutes() {
        let delays = [0, 1, 2, 3, 9, 10, 64, u32::MAX].map(|attempts| RETRIES.delay_after(attempts, 100).as_secs());
        assert_eq!(delays, [1, 1, 2, 4, 256, 300, 300, 300]);
    }
}
