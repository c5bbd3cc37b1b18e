//! Where events go: each sink with its lag, rate, retry queue and circuit; a test message to a receiver.

use askama::Template;
use dibs_common::{
    clock,
    db::{self, console::QueuedMessage},
    domain::admin_action::{ActionContext, NewAdminAction},
    error::Error,
    identifiers::new_uuid,
    integrations::messages::Receiver,
    live::{self, DeliveryTest},
};
use serde::Serialize;

use super::{
    forms::{Fields, QueryFields},
    guard::{At, Visit},
    page::{Failure, PageResult, Shell, render, see},
    snapshot::{LiveSink, Snapshot},
    words::Words,
};

/// Messages of the retry queues that are shown.
const SHOWN_QUEUED: u32 = 50;

/// The part that moves.
#[derive(Template)]
#[template(path = "delivery_live.html")]
pub struct DeliveryLive<'p> {
    pub s: &'p Words,
    pub n: &'p Snapshot,
}

impl DeliveryLive<'_> {
    fn rate(&self, sink: &LiveSink) -> String {
        sink.rate.map_or_else(|| "–".to_owned(), |rate| self.s.t1("unit.per_second", format!("{rate:.1}")))
    }

    /// The key of the text that says how a sink is, and its tone.
    fn state(&self, sink: &LiveSink) -> (&'static str, &'static str) {
        match &sink.report {
            Some(report) if report.is_circuit_open => ("circuit_open", "bad"),
            Some(report) if report.is_failing => ("failing", "warn"),
            Some(_) => ("serving", "good"),
            None => ("unserved", "warn"),
        }
    }

    /// Who takes it: the text of the name.
    fn described(&self, sink: &LiveSink) -> String {
        self.s.named("sink", &sink.row.name)
    }
}

#[derive(Template)]
#[template(path = "delivery.html")]
struct DeliveryPage<'p> {
    s: &'p Shell,
    live: String,
    receivers: Vec<&'static str>,
    queued: &'p [QueuedMessage],
    is_empty: bool,
}

pub async fn show(visit: Visit, QueryFields(query): QueryFields) -> PageResult {
    let shell = visit.shell("delivery").with_notice(query.text("done"));
    let fail = |error: Error| Failure(shell.clone(), error.into());
    let frame = visit.console.app.hub.current().await.map_err(fail)?;
    let words = Words { now: frame.snapshot.at, ..visit.words };
    let live = DeliveryLive { s: &words, n: &frame.snapshot }.render();
    let live = live.map_err(|error| fail(Error::internal(error)))?;
    let pool = &visit.console.app.database.pool();
    let queued = db::within(db::console::list_queued(pool, SHOWN_QUEUED)).await.map_err(fail)?;
    let sinks = &frame.snapshot.sinks;
    let receivers = Receiver::ALL.map(Receiver::name).into_iter();
    let receivers = receivers.filter(|name| sinks.iter().any(|sink| sink.row.name == *name)).collect();
    Ok(render(&DeliveryPage { s: &shell, live, receivers, queued: &queued, is_empty: sinks.is_empty() }))
}

/// Asks a worker to send a test message. The page shows what the receiver said.
pub async fn test(visit: Visit, At(sink): At<String>, fields: Fields) -> PageResult {
    let shell = visit.shell("delivery");
    let fail = |error: Error| Failure(shell.clone(), error.into());
    if !Receiver::ALL.iter().any(|receiver| receiver.name() == sink) {
        return Err(fail(Error::field("sink", "expected data-platform or notifications")));
    }
    let app = visit.console.app.clone();
    let operation = new_uuid();
    let reason = fields.given("reason").map(str::to_owned);
    let (actor, at) = (visit.actor().to_owned(), clock::now());
    let context = ActionContext { actor: actor.clone(), request_id: operation.to_string(), reason, operation, at };
    let test = DeliveryTest { id: format!("test-{operation}"), actor, requested_at: at };
    let requesting = async move {
        record(&app.database, &sink, &context, &test.id).await?;
        live::request_test(&app.redis, &sink, &test).await
    };
    visit.console.app.run_to_end(requesting).await.map_err(fail)?;
    Ok(see("/console/delivery?done=tested"))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TestMessage<'t> {
    message_id: &'t str,
}

async fn record(database: &db::Database, sink: &str, context: &ActionContext, id: &str) -> dibs_common::Result<()> {
    let action = NewAdminAction::created("delivery.test", &sink, &TestMessage { message_id: id });
    let insert = || {
        db::with_timeout(async {
            let mut transaction = database.begin().await?;
            db::admin_actions::insert(&mut transaction, context, &action).await?;
            transaction.commit().await
        })
    };
    db::retrying("record_delivery_test", insert).await
}
