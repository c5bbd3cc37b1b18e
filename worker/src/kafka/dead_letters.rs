use dibs_common::{
    clock,
    db::{self, Database},
    domain::dead_letter::NewDeadLetter,
    error::Result,
};

use super::consumer::Record;

/// Gives a record up: it can never be read, and must not hold up those behind it. `source` is who could not read it.
pub(super) async fn bury(database: &Database, source: &str, kind: &str, record: &Record, reason: &str) -> Result<()> {
    let letter = NewDeadLetter {
        source: source.into(),
        key: record.place(),
        kind: kind.into(),
        aggregate_id: None,
        payload: String::from_utf8_lossy(&record.value).into_owned(),
        // Whoever sent it can send one that can be read.
        redrivable: false,
        reason: reason.into(),
        attempts: 1,
    };
    let burying = async {
        let mut connection = database.pool().acquire().await?;
        db::dead_letters::insert_truncated(&mut connection, &letter, record.bytes, clock::now()).await
    };
    if !db::within(burying).await? {
        return Ok(());
    }
    metrics::counter!("dibs_kafka_dead_letters_total", "consumer" => source.to_owned()).increment(1);
    tracing::warn!(
        source,
        place = record.place(),
        reason,
        "a message of Kafka cannot be used; it is a dead letter now"
    );
    Ok(())
}
