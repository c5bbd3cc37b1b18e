use dibs_common::{
    clock, db,
    domain::dead_letter::{DeadLetter, DeadLetterStatus, beginning},
    error::{Error, Result},
    identifiers::DeadLetterId,
};
use sqlx::MySqlPool;

/// How much of a payload is shown, in bytes.
const SHOWN: usize = 300;
/// How many letters are asked for in one statement.
const ASKED_AT_ONCE: u32 = 1_000;

/// Asks for a dead letter to be sent again; how it stands then.
pub async fn redrive(pool: &MySqlPool, id: DeadLetterId) -> Result<DeadLetterStatus> {
    let letter = db::within(db::dead_letters::request_redrive(pool, id, clock::now()))
        .await?
        .ok_or(Error::DeadLetterNotFound(id))?;
    if letter.status == DeadLetterStatus::Dead {
        return Err(Error::DeadLetterNotRedrivable(id));
    }
    Ok(letter.status)
}

/// Asks for all dead letters of a source to be sent again, as far as they can be; how many. One that fails again
/// meanwhile is not asked for twice.
pub async fn redrive_source(pool: &MySqlPool, source: &str) -> Result<u64> {
    let (mut asked, mut after) = (0, None);
    loop {
        let next = db::dead_letters::request_redrive_of_source(pool, source, after, clock::now(), ASKED_AT_ONCE);
        let Some((last, count)) = db::within(next).await? else { return Ok(asked) };
        asked += count;
        after = Some(last);
    }
}

/// A dead letter on one line, for people: its id, status, source, key, kind, what it is about, attempts, when it was
/// buried, why, and the beginning of its payload, between tabs.
pub fn dead_letter_line(letter: &DeadLetter) -> String {
    let fields = [
        letter.id.to_string(),
        letter.status.into_str().to_owned(),
        letter.source.clone(),
        letter.source_key.clone(),
        letter.kind.clone(),
        letter.aggregate_id.clone().unwrap_or_else(|| "-".into()),
        format!("{} attempts", letter.attempts),
        letter.dead_lettered_at.to_rfc3339(),
        letter.reason.clone(),
        beginning(&letter.payload, SHOWN).to_owned(),
    ];
    // Whatever a sender put into it, it stays on its line, and does nothing to the terminal.
    let clean = |field: &String| field.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    fields.iter().map(clean).collect::<Vec<_>>().join("\t")
}

#[cfg(test)]
mod tests {
    use dibs_common::{clock::from_millis, domain::dead_letter::DeadLetterStatus, identifiers::DeadLetterId};

    use super::*;

    #[test]
    fn a_dead_letter_is_one_line_whatever_it_says() {
        let letter = DeadLetter {
            id: DeadLetterId::try_from(3).expect("an id"),
            source: "data-platform".into(),
            source_key: "event-7-0".into(),
            kind: "order.paid".into(),
            aggregate_id: None,
            payload: "a\n\u{1b}[2Jb\t".repeat(1_000),
            payload_bytes: 8_000,
            redrivable: true,
            reason: "it answered 422:\nno".into(),
            attempts: 2,
            status: DeadLetterStatus::Dead,
            dead_lettered_at: from_millis(0),
            redrive_at: None,
            sent_at: None,
            dropped_at: None,
        };
        let line = dead_letter_line(&letter);
        assert!(line.starts_with("3\tDEAD\tdata-platform\tevent-7-0\torder.paid\t-\t2 attempts\t1970-01-01"), "{line}");
        assert!(line.contains("\tit answered 422: no\ta  [2Jb a"), "{line}");
        assert!(line.len() < 500 && line.split('\t').count() == 10, "{line}");
    }
}
