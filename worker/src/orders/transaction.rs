use std::time::Duration;

use dibs_common::{
    clock::Timestamp,
    db::{
        self, Database,
        orders::{DuplicateCheck, PlannedCommands},
    },
    domain::order::{self, Command, OrderOutcome, OrderRules, execute},
    error::{Error, Result},
};

/// A transaction that takes longer has lost its server.
const LONGEST: Duration = Duration::from_secs(30);
/// How often a batch is decided again when others decided some of it meanwhile: what they write is seen only afterwards,
/// and each time there is more of it.
const LOOKS: u32 = 5;

/// Decides a batch in one transaction, under the locks of all rows that it needs, and answers the outcomes, in the
/// order of the commands.
pub async fn execute_batch(
    database: &Database,
    commands: &[Command],
    rules: &OrderRules,
    now: Timestamp,
) -> Result<Vec<OrderOutcome>> {
    let mut look = DuplicateCheck::Optimistic;
    for _ in 0..LOOKS {
        if let Some(outcomes) = transact(database, commands, rules, (now, look)).await? {
            return Ok(outcomes);
        }
        // A repeat is rare. Only a batch that met one pays for reading what was decided.
        look = DuplicateCheck::Explicit;
    }
    Err(Error::internal("a batch breaks a key again and again, though what is there was looked at"))
}

/// Refuses a command that cannot be executed for a fault of its own, unless it has its outcome; answers that.
pub(super) async fn fail_permanently(
    database: &Database,
    command: &Command,
    rules: &OrderRules,
    now: Timestamp,
) -> Result<OrderOutcome> {
    let commands = std::slice::from_ref(command);
    let refused = db::retrying("fail_command_permanently", || {
        db::with_timeout(async {
            let mut transaction = database.begin().await?;
            let mut shop = db::orders::lock_state(&mut transaction, commands, DuplicateCheck::Explicit).await?;
            let plan = order::fail_permanently(&mut shop, command, rules, now);
            let batch = PlannedCommands { state: &shop, commands, plan: &plan };
            db::orders::write_plan(&mut transaction, batch, now, database.statement_bytes()).await?;
            transaction.commit().await?;
            Ok(plan.outcomes.into_iter().next())
        })
    });
    refused.await?.ok_or_else(|| Error::internal("a command that failed permanently has no outcome"))
}

/// Whether each command needs a row that another session has locked.
pub(super) async fn find_locked(database: &Database, commands: &[Command]) -> Result<Vec<bool>> {
    db::retrying_batch("probe_commands", || {
        db::with_timeout(async {
            let mut transaction = database.begin_batch().await?;
            let locked = db::orders::find_locked(&mut transaction, commands).await?;
            transaction.rollback().await?;
            Ok(locked)
        })
    })
    .await
}

async fn transact(
    database: &Database,
    commands: &[Command],
    rules: &OrderRules,
    (now, look): (Timestamp, DuplicateCheck),
) -> Result<Option<Vec<OrderOutcome>>> {
    db::retrying_batch("execute_commands", || async {
        let attempt = tokio::time::timeout(LONGEST, attempt(database, commands, rules, (now, look))).await;
        attempt.unwrap_or_else(|elapsed| Err(sqlx::Error::Io(elapsed.into())))
    })
    .await
}

/// None when some of it was decided meanwhile, and is to be looked at.
async fn attempt(
    database: &Database,
    commands: &[Command],
    rules: &OrderRules,
    (now, look): (Timestamp, DuplicateCheck),
) -> Result<Option<Vec<OrderOutcome>>, sqlx::Error> {
    let mut transaction = database.begin_batch().await?;
    let mut shop = db::orders::lock_state(&mut transaction, commands, look).await?;
    let plan = execute(&mut shop, commands, rules, now);
    let batch = PlannedCommands { state: &shop, commands, plan: &plan };
    match db::orders::write_plan(&mut transaction, batch, now, database.statement_bytes()).await {
        Ok(()) => transaction.commit().await.map(|()| Some(plan.outcomes)),
        // Dropping the transaction rolls back the whole batch, so nothing of it is written twice.
        Err(error) if db::is_duplicate(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
