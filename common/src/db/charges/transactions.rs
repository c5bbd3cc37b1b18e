use std::time::Duration;

use serde::Serialize;
use sqlx::MySqlConnection;
use tokio::time::timeout;

use super::rows;
use crate::{
    clock::Timestamp,
    db::{Database, points, retrying, statements::insert_event},
    domain::{
        charge::{Charge, ChargeStatus, Decision, NewCharge},
        event::{Aggregate, Event},
        points::{Account, ChargeRejectReason, PointRules},
    },
    error::{Dependency, Error, Result},
    identifiers::{ChargeId, UserId},
};

/// The limit for all attempts of a transaction, with the time that it waits for others of the same user. Then the
/// server counts as unreachable.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A charge and its user's balance: right after the charge when it is approved, else the balance now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeWithBalance {
    pub charge: Charge,
    pub balance: i64,
}

/// Why a transaction was rolled back.
enum TransactionError {
    /// By a rule; another attempt would end the same way.
    Rejected(Error),
    Database(sqlx::Error),
}

impl From<sqlx::Error> for TransactionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<ChargeRejectReason> for TransactionError {
    fn from(reason: ChargeRejectReason) -> Self {
        Self::Rejected(reason.into())
    }
}

/// Begins a charge: its amount is reserved until the charge is settled. Returns an existing charge of that id
/// unchanged.
pub async fn begin(
    database: &Database,
    wanted: &NewCharge,
    rules: PointRules,
    now: Timestamp,
) -> Result<ChargeWithBalance> {
    transact("begin_charge", || async {
        let mut transaction = database.begin().await?;
        let (begun, _) = reserve(&mut transaction, wanted, rules, now).await?;
        transaction.commit().await?;
        Ok(begun)
    })
    .await
}

/// Begins a charge and credits it in one transaction, for a shop without a payment gateway. Returns an existing charge
/// of that id unchanged, also when a gateway has yet to decide it.
pub async fn begin_approved(
    database: &Database,
    wanted: &NewCharge,
    rules: PointRules,
    now: Timestamp,
) -> Result<ChargeWithBalance> {
    transact("charge_at_once", || async {
        let mut transaction = database.begin().await?;
        let (mut begun, new_account) = reserve(&mut transaction, wanted, rules, now).await?;
        // Only a new charge. One that exists may be with a gateway, which alone decides it.
        if let Some(account) = new_account {
            begun = decide(&mut transaction, begun.charge, account, Decision::Approved, now).await?;
        }
        transaction.commit().await?;
        Ok(begun)
    })
    .await
}

/// Settles a charge of `user`: credits its amount, or gives the reservation back. Returns a charge that was settled
/// before unchanged, whatever the decision.
pub async fn settle(
    database: &Database,
    charge: ChargeId,
    user: UserId,
    decision: Decision,
    now: Timestamp,
) -> Result<ChargeWithBalance> {
    transact("settle_charge", || async {
        let mut transaction = database.begin().await?;
        let account = points::lock(&mut transaction, user, now).await?;
        // After the account, as in `reserve`: the other way round, the two would wait for each other.
        let Some(found) = rows::lock(&mut transaction, charge).await?.filter(|found| found.wanted.user == user) else {
            return Err(TransactionError::Rejected(Error::ChargeNotFound(charge)));
        };
        let settled = if found.status == ChargeStatus::Pending {
            decide(&mut transaction, found, account, decision, now).await?
        } else {
            existing(&mut transaction, found, account).await?
        };
        transaction.commit().await?;
        Ok(settled)
    })
    .await
}

/// Takes at most `limit` pending charges that are due, for the caller to ask the payment gateway about: no other worker
/// takes them until `taken_until`. Each counts one attempt more.
pub async fn take_due(database: &Database, limit: u32, now: Timestamp, taken_until: Timestamp) -> Result<Vec<Charge>> {
    // The transaction ends before the gateway is asked: no row stays locked during a network call.
    let taking = retrying("take_due_charges", || async {
        let mut transaction = database.begin().await?;
        let mut charges = rows::lock_due(&mut transaction, limit, now).await?;
        for charge in &mut charges {
            charge.attempts = charge.attempts.saturating_add(1);
        }
        if !charges.is_empty() {
            rows::mark_taken(&mut transaction, &charges, taken_until).await?;
        }
        transaction.commit().await?;
        Ok(charges)
    });
    with_timeout(Box::pin(taking)).await
}

async fn transact<F>(name: &'static str, mut transaction: impl FnMut() -> F) -> Result<ChargeWithBalance>
where
    F: Future<Output = Result<ChargeWithBalance, TransactionError>>,
{
    // A rejection must not be retried, so `retrying` sees it as a result.
    let attempts = retrying(name, || {
        // Boxed, as the future of a transaction is large and `retrying` holds it by value.
        let attempt = Box::pin(transaction());
        async {
            match attempt.await {
                Ok(charge) => Ok(Ok(charge)),
                Err(TransactionError::Rejected(error)) => Ok(Err(error)),
                Err(TransactionError::Database(error)) => Err(error),
            }
        }
    });
    with_timeout(Box::pin(attempts)).await?
}

async fn with_timeout<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(TIMEOUT, work).await.map_err(|elapsed| Error::unavailable(Dependency::MySql, elapsed))?
}

/// Inserts the charge and reserves its amount. The account, locked, comes only with a charge that is new.
async fn reserve(
    connection: &mut MySqlConnection,
    wanted: &NewCharge,
    rules: PointRules,
    now: Timestamp,
) -> Result<(ChargeWithBalance, Option<Account>), TransactionError> {
    // The account is locked first, also for a charge that exists: two charges of a user would deadlock otherwise.
    let account = points::lock(connection, wanted.user, now).await?;
    if let Some(found) = rows::lock(connection, wanted.id).await? {
        // The id comes from the idempotency key, so other contents mean that the key was reused.
        if found.wanted != *wanted {
            return Err(TransactionError::Rejected(Error::IdempotencyKeyReused));
        }
        return Ok((existing(connection, found, account).await?, None));
    }
    let account = account.begin(wanted.amount, rules)?;
    // The amount is reserved before the gateway is asked, so that an approved charge always fits under the cap.
    rows::insert(connection, wanted, now).await?;
    points::update(connection, wanted.user, account, now).await?;
    let charge = Charge {
        wanted: wanted.clone(),
        status: ChargeStatus::Pending,
        attempts: 0,
        created_at: now,
        decided_at: None,
    };
    Ok((ChargeWithBalance { charge, balance: account.balance }, Some(account)))
}

/// Settles a pending charge. The caller has locked it and its user's account.
async fn decide(
    connection: &mut MySqlConnection,
    mut charge: Charge,
    account: Account,
    decision: Decision,
    now: Timestamp,
) -> Result<ChargeWithBalance, sqlx::Error> {
    let NewCharge { id, user, amount, .. } = charge.wanted;
    let settled = match decision {
        Decision::Approved => account.approve(amount),
        Decision::Declined => account.decline(amount),
    };
    let unreserved = || sqlx::Error::Decode(format!("charge {id} is pending, but its amount is not reserved").into());
    let account = settled.ok_or_else(unreserved)?;
    if decision == Decision::Approved {
        rows::insert_ledger_row(connection, &charge, account.balance, now).await?;
        insert_event(connection, charged_event(&charge, account.balance, now), now).await?;
    }
    points::update(connection, user, account, now).await?;
    (charge.status, charge.decided_at) = (decision.status(), Some(now));
    rows::update_status(connection, &charge).await?;
    Ok(ChargeWithBalance { charge, balance: account.balance })
}

/// An existing charge, with the balance that its first response showed when it was approved.
async fn existing(
    connection: &mut MySqlConnection,
    charge: Charge,
    account: Account,
) -> Result<ChargeWithBalance, sqlx::Error> {
    let after = rows::find_balance_after(connection, charge.wanted.id).await?;
    Ok(ChargeWithBalance { charge, balance: after.unwrap_or(account.balance) })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PointsCharged {
    user_id: UserId,
    charge_id: ChargeId,
    amount: i64,
    balance: i64,
    #[serde(serialize_with = "crate::clock::serialize")]
    charged_at: Timestamp,
}

fn charged_event(charge: &Charge, balance: i64, charged_at: Timestamp) -> Event {
    let NewCharge { id, user, amount, .. } = charge.wanted;
    let payload = PointsCharged { user_id: user, charge_id: id, amount, balance, charged_at };
    Event::new(Aggregate::Points(user), "points.charged", &payload)
}
