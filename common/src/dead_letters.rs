//! What an administrator does with a dead letter: request its redrive, or drop it.

use crate::{
    clock::Timestamp,
    db::{self, Database, dead_letters::DeadLettersPage},
    domain::dead_letter::{CLAIMS, DeadLetter, DeadLetterStatus},
    error::{Error, Result},
    identifiers::DeadLetterId,
    redis::{
        Redis,
        streams::{ClaimEntry, Entry as _, stored_entry},
    },
    rejections,
};

/// Letters that are listed at once.
const PAGE: u32 = 1_000;

/// Requests a redrive; the letter after that. One that was sent stays so.
pub async fn request_redrive(database: &Database, id: DeadLetterId, now: Timestamp) -> Result<DeadLetter> {
    let letter = db::within(db::dead_letters::request_redrive(&database.pool(), id, now)).await?;
    let letter = letter.ok_or(Error::DeadLetterNotFound(id))?;
    match letter.status {
        DeadLetterStatus::Redrive | DeadLetterStatus::Sent => Ok(letter),
        DeadLetterStatus::Dead | DeadLetterStatus::Dropped => Err(Error::DeadLetterNotRedrivable(id)),
    }
}

/// Drops a letter. The claims of it get an outcome first: their users wait for one. One that was sent or dropped before
/// stays unchanged. Fails with [`Error::DeadLetterRedriven`] while a redrive is requested and not done.
///
/// May die between any two steps: rejections, returned quantity and status are each written once, and the letter stays
/// DEAD until all of them are.
pub async fn drop_letter(database: &Database, redis: &Redis, id: DeadLetterId, now: Timestamp) -> Result<()> {
    let letter = find(database, id).await?;
    match letter.status {
        DeadLetterStatus::Redrive => return Err(Error::DeadLetterRedriven(id)),
        DeadLetterStatus::Sent | DeadLetterStatus::Dropped => return Ok(()),
        DeadLetterStatus::Dead => {}
    }
    // Before the status: a crash in between leaves the letter DEAD, and the next attempt completes it.
    if letter.source == CLAIMS {
        reject_claims(database, redis, &letter, now).await?;
    }
    if db::within(db::dead_letters::mark_dropped(&database.pool(), id, now)).await? {
        tracing::warn!(%id, source = letter.source, key = letter.source_key, "dead letter dropped");
        return Ok(());
    }
    // Another administrator was faster. A redrive finds the rejections and changes nothing.
    match find(database, id).await?.status {
        DeadLetterStatus::Dropped | DeadLetterStatus::Sent => Ok(()),
        DeadLetterStatus::Dead | DeadLetterStatus::Redrive => Err(Error::DeadLetterRedriven(id)),
    }
}

/// Drops every DEAD letter of a source; how many there were.
pub async fn drop_source(database: &Database, redis: &Redis, source: &str, now: Timestamp) -> Result<u64> {
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
            match drop_letter(database, redis, letter.id, now).await {
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
