//! The table `charges`, and how a charge goes through the tables of points. Locks go by table: the account first, then
//! the charge.

use std::time::Duration;

use serde::Serialize;
use sqlx::{MySqlConnection, MySqlPool};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Database,
    decode::{identifier, parse},
    points, retrying,
    statements::Statements,
};
use crate::{
    clock::Timestamp,
    domain::{
        charge::{Charge, ChargeStatus, Decision, LEFT_TO_ITS_PROCESS, NewCharge},
        event::{Aggregate, Event},
        points::{Account, ChargeRejectReason, LedgerType, PointRules},
    },
    error::{Dependency, Error, Result},
    identifiers::{ChargeId, UserId},
};

/// How long a transaction may take, and wait for others of the same user, before the database counts as gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// A charge, and what it left its user with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeWithBalance {
    /// The charge.
    pub charge: Charge,
    /// The user's balance: right after the charge when it is approved, now otherwise.
    pub balance: i64,
}

/// Why a transaction was rolled back.
enum Ended {
    Refused(Error),
    Broken(sqlx::Error),
}

impl From<sqlx::Error> for Ended {
    fn from(error: sqlx::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<ChargeRejectReason> for Ended {
    fn from(refusal: ChargeRejectReason) -> Self {
        Self::Refused(refusal.into())
    }
}

/// Puts a charge on its way: its amount is reserved until it is settled. One that is there already is answered as it
/// is.
pub async fn begin(
    database: &Database,
    wanted: &NewCharge,
    rules: PointRules,
    now: Timestamp,
) -> Result<ChargeWithBalance> {
    transact("begin_charge", || async {
        let mut transaction = database.begin().await?;
        let (charged, _) = reserve(&mut transaction, wanted, rules, now).await?;
        transaction.commit().await?;
        Ok(charged)
    })
    .await
}

/// Puts a charge on its way and credits it, in one transaction: for a shop without a payment gateway. One that is
/// there already is answered as it is, also when a gateway has yet to decide it.
pub async fn begin_approved(
    database: &Database,
    wanted: &NewCharge,
    rules: PointRules,
    now: Timestamp,
) -> Result<ChargeWithBalance> {
    transact("charge_at_once", || async {
        let mut transaction = database.begin().await?;
        let (mut charged, begun) = reserve(&mut transaction, wanted, rules, now).await?;
        if let Some(account) = begun {
            let place = (&mut *transaction, database.statement_bytes());
            charged = decide(place, charged.charge, account, Decision::Approved, now).await?;
        }
        transaction.commit().await?;
        Ok(charged)
    })
    .await
}

/// Ends a charge: credits its amount, or gives it up. One that has ended already is answered as it is, whatever the
/// decision.
pub async fn settle(
    database: &Database,
    (charge, user): (ChargeId, UserId),
    decision: Decision,
    now: Timestamp,
) -> Result<ChargeWithBalance> {
    transact("settle_charge", || async {
        let mut transaction = database.begin().await?;
        let account = points::lock(&mut transaction, user, now).await?;
        let Some(found) = lock_charge(&mut transaction, charge).await?.filter(|found| found.wanted.user == user) else {
            return Err(Ended::Refused(Error::ChargeNotFound(charge)));
        };
        let charged = if found.status == ChargeStatus::Pending {
            decide((&mut transaction, database.statement_bytes()), found, account, decision, now).await?
        } else {
            existing(&mut transaction, found, account).await?
        };
        transaction.commit().await?;
        Ok(charged)
    })
    .await
}

async fn transact<F>(name: &'static str, mut transaction: impl FnMut() -> F) -> Result<ChargeWithBalance>
where
    F: Future<Output = Result<ChargeWithBalance, Ended>>,
{
    // What is refused must not be tried again, so to `retrying` it is done.
    let attempts = retrying(name, || {
        let attempt = Box::pin(transaction());
        async {
            match attempt.await {
                Ok(charged) => Ok(Ok(charged)),
                Err(Ended::Refused(error)) => Ok(Err(error)),
                Err(Ended::Broken(error)) => Err(error),
            }
        }
    });
    in_time(Box::pin(attempts)).await?
}

async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(PATIENCE, work).await.map_err(|elapsed| Error::unavailable(Dependency::MySql, elapsed))?
}

/// The charge; and the account, locked, when the charge was not there before.
async fn reserve(
    connection: &mut MySqlConnection,
    wanted: &NewCharge,
    rules: PointRules,
    now: Timestamp,
) -> Result<(ChargeWithBalance, Option<Account>), Ended> {
    let account = points::lock(connection, wanted.user, now).await?;
    if let Some(found) = lock_charge(connection, wanted.id).await? {
        if found.wanted != *wanted {
            return Err(Ended::Refused(Error::IdempotencyKeyReused));
        }
        return Ok((existing(connection, found, account).await?, None));
    }
    let account = account.begin(wanted.amount, rules)?;
    insert_charge(connection, wanted, now).await?;
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

/// Ends a pending charge; it and its user's account are locked.
async fn decide(
    (connection, statement_bytes): (&mut MySqlConnection, usize),
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
    let strange = || sqlx::Error::Decode(format!("charge {id} is pending, but its amount is not reserved").into());
    let account = settled.ok_or_else(strange)?;
    if decision == Decision::Approved {
        insert_ledger_row(connection, &charge, account.balance, now).await?;
        let event = charged_event(&charge, account.balance, now);
        let mut statements = Statements::new(statement_bytes);
        statements.events(&[event], now);
        statements.send(connection).await?;
    }
    points::update(connection, user, account, now).await?;
    (charge.status, charge.decided_at) = (decision.status(), Some(now));
    update_status(connection, &charge).await?;
    Ok(ChargeWithBalance { charge, balance: account.balance })
}

/// A charge that was there before, with the balance that it was answered with when it was approved.
async fn existing(
    connection: &mut MySqlConnection,
    charge: Charge,
    account: Account,
) -> Result<ChargeWithBalance, sqlx::Error> {
    let after: Option<i64> = sqlx::query_scalar(
        "SELECT /* charges::existing */ balance_after FROM point_histories WHERE reference_id = ? AND type = ?",
    )
    .bind(charge.wanted.id.0)
    .bind(LedgerType::Charge.into_str())
    .fetch_optional(connection)
    .await?;
    Ok(ChargeWithBalance { charge, balance: after.unwrap_or(account.balance) })
}

/// What those are told who hear of events.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PointsCharged {
    user_id: UserId,
    charge_id: ChargeId,
    amount: i64,
    balance: i64,
    charged_at: Timestamp,
}

fn charged_event(charge: &Charge, balance: i64, charged_at: Timestamp) -> Event {
    let NewCharge { id, user, amount, .. } = charge.wanted;
    let payload = PointsCharged { user_id: user, charge_id: id, amount, balance, charged_at };
    Event::new(Aggregate::Points(user), "points.charged", &payload)
}

async fn insert_charge(
    connection: &mut MySqlConnection,
    wanted: &NewCharge,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO charges /* charges::insert_charge */ (charge_id, user_id, amount, payment_method, status, \
         next_attempt_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(wanted.id.0)
    .bind(wanted.user.get())
    .bind(wanted.amount)
    .bind(&wanted.payment_method)
    .bind(ChargeStatus::Pending.into_str())
    .bind(now + LEFT_TO_ITS_PROCESS)
    .bind(now)
    .execute(connection)
    .await
    .map(drop)
}

async fn insert_ledger_row(
    connection: &mut MySqlConnection,
    charge: &Charge,
    balance_after: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO point_histories /* charges::insert_ledger_row */ (user_id, type, amount, balance_after, reference_id, \
         created_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(charge.wanted.user.get())
    .bind(LedgerType::Charge.into_str())
    .bind(charge.wanted.amount)
    .bind(balance_after)
    .bind(charge.wanted.id.0)
    .bind(now)
    .execute(connection)
    .await
    .map(drop)
}

async fn update_status(connection: &mut MySqlConnection, charge: &Charge) -> Result<(), sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE charges /* charges::update_status */ SET status = ?, decided_at = ?, next_attempt_at = NULL \
         WHERE charge_id = ? AND status = 'PENDING'",
    )
    .bind(charge.status.into_str())
    .bind(charge.decided_at)
    .bind(charge.wanted.id.0)
    .execute(connection)
    .await?;
    if updated.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

#[derive(sqlx::FromRow)]
struct ChargeRow {
    charge_id: Uuid,
    user_id: u64,
    amount: i64,
    payment_method: Option<String>,
    status: String,
    attempts: u32,
    created_at: Timestamp,
    decided_at: Option<Timestamp>,
}

const COLUMNS: &str = "charge_id, user_id, amount, payment_method, status, attempts, created_at, decided_at";

impl TryFrom<ChargeRow> for Charge {
    type Error = sqlx::Error;

    fn try_from(row: ChargeRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            status: parse("charges.status", &row.status)?,
            wanted: NewCharge {
                id: ChargeId(row.charge_id),
                user: identifier(row.user_id)?,
                amount: row.amount,
                payment_method: row.payment_method,
            },
            attempts: row.attempts,
            created_at: row.created_at,
            decided_at: row.decided_at,
        })
    }
}

async fn lock_charge(connection: &mut MySqlConnection, charge: ChargeId) -> Result<Option<Charge>, sqlx::Error> {
    let sql = format!(
        "SELECT /* charges::lock_charge: it ends once, under this lock */ {COLUMNS} FROM charges WHERE charge_id = ? FOR UPDATE"
    );
    let row: Option<ChargeRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(charge.0).fetch_optional(connection).await?;
    row.map(Charge::try_from).transpose()
}

/// The charge of that id, if there is one.
pub async fn find(pool: &MySqlPool, charge: ChargeId) -> Result<Option<Charge>, sqlx::Error> {
    let sql = format!("SELECT /* charges::find */ {COLUMNS} FROM charges WHERE charge_id = ?");
    let row: Option<ChargeRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(charge.0).fetch_optional(pool).await?;
    row.map(Charge::try_from).transpose()
}

/// How many charges wait for the payment gateway.
pub async fn count_pending(pool: &MySqlPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT /* charges::count_pending */ COUNT(*) FROM charges WHERE status = 'PENDING'")
        .fetch_one(pool)
        .await
}

/// Takes at most `limit` pending charges that are due, to ask the payment gateway about them: until `taken_until`
/// nobody else takes them. Each counts one attempt more.
pub async fn take_due(database: &Database, limit: u32, now: Timestamp, taken_until: Timestamp) -> Result<Vec<Charge>> {
    let taking = retrying("take_due_charges", || async {
        let mut transaction = database.begin().await?;
        let mut charges = lock_due(&mut transaction, limit, now).await?;
        for charge in &mut charges {
            charge.attempts = charge.attempts.saturating_add(1);
        }
        if !charges.is_empty() {
            mark_taken(&mut transaction, &charges, taken_until).await?;
        }
        transaction.commit().await?;
        Ok(charges)
    });
    in_time(Box::pin(taking)).await
}

async fn lock_due(connection: &mut MySqlConnection, limit: u32, now: Timestamp) -> Result<Vec<Charge>, sqlx::Error> {
    // Read in any other order, it would lock all that are due and not only those that it takes.
    let sql = format!(
        "SELECT /* charges::lock_due: another worker takes others, and one that is being settled is left alone */ {COLUMNS} \
         FROM charges FORCE INDEX (due) WHERE status = 'PENDING' AND next_attempt_at <= ? ORDER BY next_attempt_at \
         LIMIT ? FOR UPDATE SKIP LOCKED"
    );
    let rows: Vec<ChargeRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(now).bind(limit).fetch_all(connection).await?;
    rows.into_iter().map(Charge::try_from).collect()
}

async fn mark_taken(connection: &mut MySqlConnection, charges: &[Charge], until: Timestamp) -> Result<(), sqlx::Error> {
    let places = vec!["?"; charges.len()].join(", ");
    let sql = format!(
        "UPDATE charges /* charges::mark_taken */ SET attempts = attempts + 1, next_attempt_at = ? WHERE charge_id IN ({places})"
    );
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(until);
    for charge in charges {
        query = query.bind(charge.wanted.id.0);
    }
    query.execute(connection).await.map(drop)
}

/// Lets a charge be asked about again from `next_attempt_at` on. Nothing when it has ended meanwhile.
pub async fn postpone(pool: &MySqlPool, charge: ChargeId, next_attempt_at: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE charges /* charges::postpone */ SET next_attempt_at = ? WHERE charge_id = ? AND status = 'PENDING'",
    )
    .bind(next_attempt_at)
    .bind(charge.0)
    .execute(pool)
    .await
    .map(drop)
}
