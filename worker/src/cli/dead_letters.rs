use dibs_common::{
    db::{self, dead_letters::DeadLettersPage},
    dead_letters as letters,
    error::Result,
    identifiers::DeadLetterId,
};
use serde::Serialize;

use super::{context, say, say_json};
use crate::{
    dead_letter_line,
    settings::{DeadLetterAction, DeadLetters, Selection, WorkerSettings},
};

/// `dibs-worker dead-letters`.
pub async fn dead_letters(settings: &WorkerSettings, wanted: &DeadLetters) -> Result<()> {
    let database = settings.shared.database(1)?;
    let DeadLetters { source, status, limit, json, action } = wanted.clone();
    match action {
        Some(DeadLetterAction::Redrive(Selection { id, source, reason, json })) => {
            let context = context(reason);
            if let Some(id) = id {
                let letter = letters::request_redrive(&database, id, &context).await?;
                return report(json, Some(id), letter.status.into_str(), 1);
            }
            let requested = letters::redrive_source(&database, &source.unwrap_or_default(), &context).await?;
            report(json, None, "REDRIVE", requested)
        }
        Some(DeadLetterAction::Drop(Selection { id, source, reason, json })) => {
            let (redis, context) = (settings.shared.redis(1).await?, context(reason));
            if let Some(id) = id {
                letters::drop_letter(&database, &redis, id, &context).await?;
                return report(json, Some(id), "DROPPED", 1);
            }
            let dropped = letters::drop_source(&database, &redis, &source.unwrap_or_default(), &context).await?;
            report(json, None, "DROPPED", dropped)
        }
        None => {
            // A line shows the beginning of a payload, JSON all of it.
            let page = DeadLettersPage { source, status, before: None, limit, is_short: !json };
            for letter in db::within(db::dead_letters::list(&database.pool(), &page)).await? {
                if json {
                    say_json(&letter)?;
                } else {
                    say(&dead_letter_line(&letter));
                }
            }
            Ok(())
        }
    }
}

/// The result for a letter, or for all letters of a source.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Handled {
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_id: Option<DeadLetterId>,
    status: &'static str,
    letters: u64,
}

fn report(json: bool, id: Option<DeadLetterId>, status: &'static str, letters: u64) -> Result<()> {
    if json {
        return say_json(&Handled { dead_letter_id: id, status, letters });
    }
    match id {
        Some(id) => say(&format!("{id} {status}")),
        None => say(&format!("{letters} {status}")),
    }
    Ok(())
}
