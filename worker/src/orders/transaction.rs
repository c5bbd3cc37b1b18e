use dibs_common::{
    clock::Timestamp,
    db::{self, Database, DuplicateCheck, orders::PlannedCommands},
    domain::order::{self, Command, OrderOutcome, OrderRules, execute},
    error::{Error, Result},
};

/// Decides a batch in one transaction, under the locks of all rows that it needs. Outcomes are in the order of the
/// commands.
pub async fn execute_batch(
    database: &Database,
    commands: &[Command],
    rules: &OrderRules,
    clock: impl Fn() -> Timestamp + Copy,
) -> Result<Vec<OrderOutcome>> {
    db::decide_batch("execute_commands", |check| async move {
        let mut transaction = database.begin_batch().await?;
        let mut state = db::orders::lock_state(&mut transaction, commands, rules, check).await?;
        // Read under the locks: a coupon that is given back after its end must not be issued once more, as the job that
        // marks coupons as expired looks at each only once after that.
        let now = clock();
        let plan = execute(&mut state, commands, rules, now);
        let batch = PlannedCommands { state: &state, commands, plan: &plan };
        match db::orders::write_plan(&mut transaction, batch, now, database.statement_bytes()).await {
            Ok(()) => transaction.commit().await.map(|()| Some(plan.outcomes)),
            // Dropping the transaction rolls back the whole batch, so nothing of it is written twice.
            Err(error) if db::is_duplicate(&error) => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Rejects a command that cannot be executed for a fault of its own, unless it has its outcome. Returns the outcome.
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
            let mut state = db::orders::lock_state(&mut transaction, commands, rules, DuplicateCheck::Explicit).await?;
            let plan = order::fail_permanently(&mut state, command, rules, now);
            let batch = PlannedCommands { state: &state, commands, plan: &plan };
            db::orders::write_plan(&mut transaction, batch, now, database.statement_bytes()).await?;
            transaction.commit().await?;
            Ok(plan.outcomes.into_iter().next())
        })
    });
    refused.await?.ok_or_else(|| Error::internal("a command that failed permanently has no outcome"))
}

/// Whether each command needs a row that another session has locked.
pub(super) async fn find_locked(database: &Database, commands: &[Command]) -> Result<Vec<bool>> {
    db::retrying_batch("probe_commands", || db::with_timeout(db::orders::find_locked(database, commands))).await
}
