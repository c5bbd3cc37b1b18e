use dibs_common::{
    clock,
    db::{self, Database},
    domain::dead_letter::NewDeadLetter,
    error::Result,
};

use super::consumer::Record;
use crate::dead_letters::report;

/// Dead-letters a record that can never be decoded, and so must not hold up those behind it. `source` is its consumer.
pub(super) async fn dead_letter(
    database: &Database,
    source: &str,
    kind: &str,
    record: &Record,
    reason: &str,
) -> Result<()> {
    let letter = NewDeadLetter {
        source: source.into(),
        key: record.position(),
        kind: kind.into(),
        aggregate_id: None,
        // The column is text, and a value may be any bytes.
        payload: String::from_utf8_lossy(&record.value).into_owned(),
        // A redrive would fail the same way; the producer can send a valid record.
        redrivable: false,
        reason: reason.into(),
        attempts: 1,
    };
    let insert = async {
        let mut connection = database.pool().acquire().await?;
        db::dead_letters::insert_truncated(&mut connection, &letter, record.bytes, clock::now()).await
    };
    // A redelivered record is a dead letter already.
    if db::within(insert).await? {
        report(source, &letter.key, reason);
    }
    Ok(())
}
