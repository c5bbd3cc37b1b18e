//! Every metric of both processes, in one table.
//!
//! `/metrics` takes its HELP lines from here. `api/tests/documents/metrics.rs` compares this table with the calls in
//! the source and with `docs/operations.md`, whose rows have the same order and words, both ways. A histogram ends with
//! `_seconds` or `_size`: `telemetry.rs` has the buckets of these.

#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help }
}

/// In the order of `docs/operations.md`: both processes, the API, then the worker from claims to deliveries.
pub const METRICS: &[Metric] = &[
    gauge("dibs_build_info", &["version", "commit"], "Always 1. The labels name the build."),
    gauge("dibs_http_connections", &[], "Connections of clients that are open."),
    counter(
        "dibs_trace_spans_total",
        &["outcome"],
        "Spans that ended; of these exported, or failed as the collector did not take them. The rest was dropped at the full queue, or waits.",
    ),
    counter(
        "dibs_http_connections_closed_total",
        &["reason"],
        "Connections that the process closed: head_timeout, idle_timeout, evicted at the bound to make room, or limit when \
         all had a request in progress.",
    ),
    counter(
        "dibs_transaction_retries_total",
        &["transaction"],
        "Transactions that began again after a deadlock or a lock wait timeout.",
    ),
    counter(
        "dibs_database_pools_replaced_total",
        &[],
        "Pools of database connections that were replaced by a new one: they could not serve, and a new connection \
         could.",
    ),
    counter(
        "dibs_key_set_failures_total",
        &[],
        "Fetches of the key set at AUTH_JWKS_URL that failed; the last keys count on.",
    ),
    counter("dibs_task_restarts_total", &["task"], "Restarts of a long-running task that panicked or ended too early."),
    histogram(
        "dibs_http_request_duration_seconds",
        &["route", "method", "status"],
        "Time from the arrival of a request to its response.",
    ),
    counter("dibs_claims_total", &["decision"], "Claims decided: accepted, refused, or refused_locally without Redis."),
    counter(
        "dibs_claim_attempts_total",
        &["outcome"],
        "Refused claims for the timelines of users: recorded, or sampled_out when more came than are stored.",
    ),
    counter(
        "dibs_rate_limited_claims_total",
        &["scope", "by"],
        "Claims above the limit of a user or address, refused by Redis or locally.",
    ),
    histogram("dibs_claim_batch_size", &[], "Claims decided by one call of the claim script."),
    counter(
        "dibs_outcome_look_ups_total",
        &["kind"],
        "Queries for the outcomes that callers of this process wait for.",
    ),
    counter(
        "dibs_outcomes_looked_up_total",
        &["kind"],
        "Outcomes that such a query found: their message was late or lost.",
    ),
    histogram("dibs_confirm_lag_seconds", &[], "Time from a claim's acceptance to its outcome in MySQL."),
    histogram("dibs_confirm_batch_size", &[], "Claims confirmed by one transaction."),
    counter(
        "dibs_claims_confirmed_total",
        &["outcome"],
        "Outcomes of claims: issued or rejected. A redelivered claim counts again.",
    ),
    counter(
        "dibs_campaign_differences_total",
        &["field"],
        "Fields of campaigns in which Redis differed from MySQL and was restored.",
    ),
    gauge(
        "dibs_campaign_drift",
        &["kind"],
        "Differences between Redis and MySQL that the last comparison of each campaign found, at most 1,000 of claims each.",
    ),
    counter("dibs_campaign_drift_total", &["kind"], "Differences between Redis and MySQL that were detected."),
    gauge("dibs_drift_check_duration_seconds", &[], "How long the last comparison of all campaigns took."),
    gauge("dibs_claim_backlog_entries", &["partition"], "Entries of 1 to 250 claims on a partition's stream."),
    histogram("dibs_command_lag_seconds", &[], "Time from a command's acceptance to its outcome in MySQL."),
    histogram("dibs_command_batch_size", &[], "Commands executed by one transaction."),
    counter(
        "dibs_commands_total",
        &["outcome"],
        "Outcomes of commands: done or rejected. A redelivered command counts again.",
    ),
    gauge("dibs_command_backlog_entries", &["partition"], "Commands on a partition's stream."),
    gauge(
        "dibs_held_entries",
        &["stream"],
        "Entries in flight that wait for rows which another session has locked: claims or commands.",
    ),
    gauge("dibs_charges_pending", &[], "Charges that the payment gateway has not decided."),
    counter(
        "dibs_charge_reconciliations_total",
        &["outcome"],
        "Repeated requests to the payment gateway about a pending charge: approved, declined, unknown or failed.",
    ),
    gauge("dibs_assignments_pending", &[], "Assignments that are not done, at most 1,000."),
    counter("dibs_job_runs_total", &["job", "outcome"], "Runs of a job: done or failed."),
    histogram("dibs_job_duration_seconds", &["job"], "Duration of a run of a job."),
    gauge("dibs_outbox_backlog_events", &["sink"], "Events that a sink has not acknowledged."),
    gauge("dibs_outbox_lag_seconds", &["sink"], "Age of the oldest event that a sink has not acknowledged."),
    gauge("dibs_outbox_unsequenced_age_seconds", &[], "Age of the oldest event that has no sequence number."),
    counter(
        "dibs_restores_noticed_total",
        &[],
        "Epochs that this worker began because MySQL was in an earlier state than before.",
    ),
    counter("dibs_outbox_sequencing_failures_total", &[], "Failed attempts to give sequence numbers to events."),
    counter("dibs_relay_events_total", &["sink"], "Events that a sink has passed, those of other kinds included."),
    counter("dibs_relay_failures_total", &["sink"], "Failed relay steps of a sink."),
    counter(
        "dibs_relay_undecodable_events_total",
        &["sink"],
        "Events that a sink skipped because they cannot be decoded.",
    ),
    counter("dibs_webhook_attempts_total", &["sink", "outcome"], "Webhook requests: accepted, refused or failed."),
    gauge(
        "dibs_webhook_retry_queue_messages",
        &["sink"],
        "Messages that wait for their next attempt, and those behind them.",
    ),
    gauge("dibs_dead_letters", &["source"], "Dead letters that were not redriven, at most 1,000."),
    counter("dibs_dead_letters_total", &["source"], "Entries and messages that became dead letters."),
    counter(
        "dibs_kafka_messages_total",
        &["consumer"],
        "Kafka messages handled by a consumer. A redelivered message counts again.",
    ),
    counter("dibs_kafka_consumer_failures_total", &["consumer"], "Failed attempts of a consumer to handle messages."),
    counter(
        "dibs_claim_requests_total",
        &["outcome"],
        "Claim requests from Kafka: accepted, or the code of the refusal in snake_case.",
    ),
];

/// A name as the value of a label, in snake case: as in `data_platform` for the sink `data-platform`.
pub fn label(name: &str) -> String {
    name.replace(['-', '.'], "_").to_lowercase()
}

/// Registers the HELP line of every metric with the installed recorder.
pub fn describe() {
    for Metric { name, kind, help, .. } in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(*name, *help),
            Kind::Gauge => metrics::describe_gauge!(*name, *help),
            Kind::Histogram => metrics::describe_histogram!(*name, *help),
        }
    }
}
