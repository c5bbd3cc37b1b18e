//! What an administrator does with a dead letter: request its redrive, or drop it.

use serde::Serialize;
use sqlx::MySqlConnection;

use crate::{
    clock::Timestamp,
    db::{self, Database, dead_letters::DeadLettersPage, retrying, with_timeout},
    domain::{
        admin_action::{ActionContext, ChangedFields, MAX_TARGET_LENGTH, NewAdminAction},
        dead_letter::{CLAIMS, DeadLetter, DeadLetterStatus},
    },
    error::{Error, Result},
    identifiers::{DeadLetterId, new_uuid},
    redis::{
        Redis,
        streams::{ClaimEntry, Entry as _, stored_entry},
    },
    rejections,
};

/// Letters that are listed at once.
const PAGE: u32 = 1_000;

/// Letters whose redrive one transaction requests.
const BATCH_SIZE: u32 = 1_000;

/// Requests a redrive; the letter after that. One that was sent stays so.
pub async fn request_redrive(database: &Database, id: DeadLetterId, context: &ActionContext) -> Result<DeadLetter> {
    let requesting = || {
        with_timeout(async {
            let mut transaction = database.begin().await?;
            // The redrive may have failed since an attempt before this one requested it: that was the one request.
            if db::admin_actions::is_done(&mut transaction, context.operation).await? {
                return Ok(());
            }
            if db::dead_letters::request_redrive(&mut transaction, id, context.at).await? {
                record(&mut transaction, context, id, DeadLetterStatus::Redrive).await?;
                transaction.commit().await?;
            }
            Ok(())
        })
    };
    retrying("request_redrive", requesting).await?;
    let letter = find(database, id).await?;
    match letter.status {
        DeadLetterStatus::Redrive | DeadLetterStatus::Sent => Ok(letter),
        DeadLetterStatus::Dead | DeadLetterStatus::Dropped => Err(Error::DeadLetterNotRedrivable(id)),
    }
}

/// Requests a redrive of all letters of a source that are redrivable; how many. One that fails again meanwhile is not
/// redriven twice. Each batch is an action of its own.
pub async fn redrive_source(database: &Database, source: &str, context: &ActionContext) -> Result<u64> {
    let (mut requested, mut after) = (0, None);
    loop {
        let context = ActionContext { operation: new_uuid(), ..context.clone() };
        let batch = retrying("redrive_source", || with_timeout(redrive_batch(database, source, after, &context)));
        let Some((last, letters)) = batch.await? else { return Ok(requested) };
        requested += letters;
        after = Some(last);
    }
}

async fn redrive_batch(
    database: &Database,
    source: &str,
    after: Option<DeadLetterId>,
    context: &ActionContext,
) -> Result<Option<(DeadLetterId, u64)>, sqlx::Error> {
    let mut transaction = database.begin().await?;
    let next = db::dead_letters::request_redrive_of_source(&mut transaction, source, after, context.at, BATCH_SIZE);
    let Some((through, letters)) = next.await? else { return Ok(None) };
    // A source has a longer name than the id of a target.
    let target: String = source.chars().take(MAX_TARGET_LENGTH).collect();
    let batch = RedrivenBatch { status: DeadLetterStatus::Redrive, letters, through };
    db::admin_actions::insert(
        &mut transaction,
        context,
        &NewAdminAction::created("dead_letter.redrive", &target, &batch),
    )
    .await?;
    transaction.commit().await?;
    Ok(Some((through, letters)))
}

/// What an action on a source changes, as `admin_actions` shows it.
#[derive(Serialize)]
struct RedrivenBatch {
    status: DeadLetterStatus,
    letters: u64,
    /// The letter with the highest id.
    through: DeadLetterId,
}

/// What an action on a letter changes.
#[derive(Serialize)]
struct LetterStatus {
    status: DeadLetterStatus,
}

/// Inserts the action by which a DEAD letter came to `status`.
async fn record(
    connection: &mut MySqlConnection,
    context: &ActionContext,
    id: DeadLetterId,
    status: DeadLetterStatus,
) -> Result<(), sqlx::Error> {
    let fields = ChangedFields::between(&LetterStatus { status: DeadLetterStatus::Dead }, &LetterStatus { status });
    let name = if status == DeadLetterStatus::Dropped { "dead_letter.drop" } else { "dead_letter.redrive" };
    db::admin_actions::insert(connection, context, &NewAdminAction::changed(name, &id, &fields)).await
}

/// Drops a letter. The claims of it get an outcome first: their users wait for one. One that was sent or dropped before
/// stays unchanged. Fails with [`Error::DeadLetterRedriven`] while a redrive is requested and not done.
///
/// May die between any two steps: rejections, returned quantity and status are each written once, and the letter stays
/// DEAD until all of them are.
pub async fn drop_letter(database: &Database, redis: &Redis, id: DeadLetterId, context: &ActionContext) -> Result<()> {
    let letter = find(database, id).await?;
    match letter.status {
        DeadLetterStatus::Redrive => return Err(Error::DeadLetterRedriven(id)),
        DeadLetterStatus::Sent | DeadLetterStatus::Dropped => return Ok(()),
        DeadLetterStatus::Dead => {}
    }
    // Before the status: a crash in between leaves the letter DEAD, and the next attempt completes it.
    if letter.source == CLAIMS {
        reject_claims(database, redis, &letter, context.at).await?;
    }
    if mark_dropped(database, id, context).await? {
        tracing::warn!(%id, source = letter.source, key = letter.source_key, "dead letter dropped");
        return Ok(());
    }
    // Another administrator was faster. A redrive finds the rejections and changes nothing.
    match find(database, id).await?.status {
        DeadLetterStatus::Dropped | DeadLetterStatus::Sent => Ok(()),
        DeadLetterStatus::Dead | DeadLetterStatus::Redrive => Err(Error::DeadLetterRedriven(id)),
    }
}

async fn mark_dropped(database: &Database, id: DeadLetterId, context: &ActionContext) -> Result<bool> {
    let dropping = || {
        with_timeout(async {
            let mut transaction = database.begin().await?;
            let is_dropped = db::dead_letters::mark_dropped(&mut transaction, id, context.at).await?;
            if is_dropped {
                record(&mut transaction, context, id, DeadLetterStatus::Dropped).await?;
                transaction.commit().await?;
            }
            Ok(is_dropped)
        })
    };
    retrying("drop_dead_letter", dropping).await
}

/// Drops every DEAD letter of a source; how many there were. Each is an action of its own.
pub async fn drop_source(database: &Database, redis: &Redis, source: &str, context: &ActionContext) -> Result<u64> {
    let mut page = DeadLettersPage {
        source: Some(source.to_owned()),
        status: Some(DeadLetterStatus::Dead),
        limit: PAGE,
        is_short: true,
        before: None,
    };
    let mut dropped = 0;
    loop {
        let letters = db::within(db::dead_letters::list(&database.pool(), &page)).await?;
        let Some(last) = letters.last() else { return Ok(dropped) };
        // By position and not from the start: a letter that cannot be dropped would come again for ever.
        page.before = Some(last.id);
        for letter in &letters {
            let context = ActionContext { operation: new_uuid(), ..context.clone() };
            match drop_letter(database, redis, letter.id, &context).await {
                Ok(()) => dropped += 1,
                // It is no longer DEAD.
                Err(Error::DeadLetterRedriven(_) | Error::DeadLetterNotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn find(database: &Database, id: DeadLetterId) -> Result<DeadLetter> {
    db::within(db::dead_letters::find(&database.pool(), id)).await?.ok_or(Error::DeadLetterNotFound(id))
}

/// An entry that cannot be decoded names no claims: there is nothing to reject.
async fn reject_claims(database: &Database, redis: &Redis, letter: &DeadLetter, now: Timestamp) -> Result<()> {
    let decoded = stored_entry(letter).and_then(|(partition, fields)| Ok((partition, ClaimEntry::read(&fields)?)));
    let Ok((partition, entry)) = decoded else { return Ok(()) };
    let outcomes = rejections::reject_failed(database, &entry.claims, now).await?;
    rejections::return_slots(database, redis, partition, &entry.claims, &outcomes).await
}
