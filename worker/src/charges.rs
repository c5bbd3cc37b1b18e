//! Asks the payment gateway again about charges whose answer was lost, until it says what became of them.
//!
//! A charge that is due is taken for a minute: a worker that dies meanwhile leaves it to the next. Two that ask about
//! the same charge do no harm, as the gateway knows it by its id and it is settled once.

use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database},
    domain::charge::{self, Charge, Decision, NewCharge},
    error::{Error, Result},
    integrations::payment_gateway::PaymentGateway,
    retry,
};
use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many charges are taken at once. With [`AT_ONCE`] and the gateway's time-out, all are asked about long before
/// [`TAKEN_FOR`] is over.
const TAKEN_AT_ONCE: u32 = 100;
/// How many questions are asked at once.
const AT_ONCE: usize = 8;
const TAKEN_FOR: TimeDelta = TimeDelta::minutes(1);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What charges are settled with.
#[derive(Clone)]
pub struct Settlement {
    /// The database.
    pub database: Database,
    /// Who is asked; without one, what is pending waits until there is one.
    pub gateway: Option<PaymentGateway>,
    /// Cancelled when the process is about to end.
    pub stopping: CancellationToken,
}

impl Settlement {
    /// Reconciles what is due, about once a second, until the process stops.
    pub async fn run(self) {
        loop {
            match self.settle_due(clock::now()).await {
                Ok(taken) if taken == TAKEN_AT_ONCE as usize && !self.stopping.is_cancelled() => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(cause = error.chain(), "charge reconciliation failed; retrying"),
            }
            if !retry::sleep(LOOK_EVERY, &self.stopping).await {
                return;
            }
        }
    }

    /// Asks once about every charge that is due at `now`, and writes down what the gateway says. Returns how many were
    /// taken. When told to stop, it asks about no further charge.
    pub async fn settle_due(&self, now: Timestamp) -> Result<usize> {
        let pending = db::within(db::charges::count_pending(self.database.pool())).await?;
        metrics::gauge!("dibs_charges_pending").set(f64::from(u32::try_from(pending).unwrap_or(u32::MAX)));
        if pending == 0 {
            return Ok(0);
        }
        let Some(gateway) = &self.gateway else {
            // Approving them here would give away what the gateway may yet decline.
            tracing::warn!(pending, "charges wait for a payment gateway, and this worker has no PAYMENT_GATEWAY_URL");
            return Ok(0);
        };
        let taken = db::charges::take_due(&self.database, TAKEN_AT_ONCE, now, now + TAKEN_FOR).await?;
        let (count, began) = (taken.len(), Instant::now());
        stream::iter(taken)
            .take_until(self.stopping.cancelled())
            .for_each_concurrent(AT_ONCE, async |charge| {
                let asked = self.ask(gateway, &charge, || now + began.elapsed()).await;
                let outcome = asked.unwrap_or_else(|error| {
                    let charge = charge.wanted.id;
                    tracing::warn!(%charge, cause = error.chain(), "a charge cannot be settled now; it is asked about again");
                    "failed"
                });
                metrics::counter!("dibs_charge_reconciliations_total", "outcome" => outcome).increment(1);
            })
            .await;
        Ok(count)
    }

    /// The outcome, as the metrics name it.
    async fn ask(
        &self,
        gateway: &PaymentGateway,
        charge: &Charge,
        now: impl Fn() -> Timestamp + Send,
    ) -> Result<&'static str> {
        let NewCharge { id, user, .. } = charge.wanted;
        let Some(decision) = gateway.ask(&charge.wanted).await.decision() else {
            let next = now() + charge::pause_after(charge.attempts);
            db::within(db::charges::postpone(self.database.pool(), id, next)).await?;
            return Ok("unknown");
        };
        let settled = db::charges::settle(&self.database, id, user, decision, now()).await?;
        if settled.charge.status != decision.status() {
            return Err(Error::internal(format!(
                "the gateway says {} of a charge that is {} already",
                decision.status().into_str(),
                settled.charge.status.into_str()
            )));
        }
        Ok(match decision {
            Decision::Approved => "approved",
            Decision::Declined => "declined",
        })
    }
}
