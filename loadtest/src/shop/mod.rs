//! Users of a shop, through goose, and their audit; with faults on demand.

mod environment;
mod random;
mod report;
mod response;
mod scenario;
mod session;
mod shopper;
mod state;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use chrono::TimeDelta;
use clap::Args;
use dibs_common::{
    clock::{self, Timestamp},
    domain::ranking::{business_day, days_after, start_of},
    identifiers::{CouponId, new_uuid},
    integrations::{messages::Receiver as Recipient, webhooks::WebhookSecrets},
};
use environment::Elapsed;
use secrecy::{ExposeSecret as _, SecretString};
use state::ShopState;
use tokio::time::Instant;

use crate::{
    RunStatus,
    api::Api,
    audit::{self, Evidence, ShopSettings},
    faults::{self, FaultArguments, Injected},
    goose_run::{GooseRun, LoadArguments},
    output,
    processes::{DedicatedStack, ExtraSettings},
    receiver::{self, Outage, Receiver},
    record::{Deliveries, ShopRecord},
    stores::Stores,
    wait,
};

/// How long a stack takes to start, roughly.
const STARTUP_ESTIMATE: Duration = Duration::from_secs(10);
/// On a stack of the run's own, unpaid orders expire while the run lasts.
const ORDER_EXPIRY: Duration = Duration::from_secs(20);
/// The run's webhook receiver answers one of so many messages with 503, and is unreachable once for so long.
const REFUSE_ONE_IN: u16 = 50;
const OUTAGE_DURATION: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct ShopArguments {
    /// Users, each with one request in flight: a closed model
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub users: u32,
    /// Products; half of all orders contain the first one
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub products: u32,
    /// Duration of the load, in seconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Shift the clock of a stack of the run's own so that midnight falls into the middle of the load; then persist the
    /// sales of the day that ended
    #[arg(long)]
    pub midnight: bool,
    #[command(flatten)]
    pub settings: ShopSettings,
    /// Listen here for the webhooks of the running stack, and compare them with its events. Its worker's
    /// `DATA_PLATFORM_URL` must be this address with /data-platform, its `NOTIFICATION_URL` with /notifications. A
    /// stack of the run's own is always compared
    #[arg(long, requires = "webhook_secret")]
    pub receiver_address: Option<SocketAddr>,
    /// `WEBHOOK_SECRET` of the running stack's worker
    #[arg(long, env, hide_env_values = true)]
    pub webhook_secret: Option<SecretString>,
    #[command(flatten)]
    pub load: LoadArguments,
    #[command(flatten)]
    pub faults: FaultArguments,
}

struct ShopResult {
    record: ShopRecord,
    campaigns: Vec<CouponId>,
    elapsed: Duration,
    injected: Vec<Injected>,
}

/// Runs the load, waits for the worker, audits, and prints the report.
pub async fn run(arguments: ShopArguments) -> Result<RunStatus> {
    if arguments.midnight || arguments.faults.total() > 0 {
        return run_on_own_stack(&arguments).await;
    }
    let api = arguments.load.api()?;
    let stores = Stores::connect(&arguments.load.stores).await?;
    // Without an address the run cannot know where the webhooks of a running stack go.
    let receiver = match (arguments.receiver_address, &arguments.webhook_secret) {
        (Some(address), Some(secret)) => Some(start_receiver(address, secret, arguments.seconds).await?),
        _ => None,
    };
    // Earlier events may have been delivered to another receiver.
    let recorded_after = audit::last_sequence(&stores.database.pool()).await?;
    let result = shop(&arguments, &api, async |_| Ok(Vec::new())).await?;
    conclude(&arguments, &stores, &result, receiver.as_ref().map(|receiver| (receiver, recorded_after))).await
}

async fn run_on_own_stack(arguments: &ShopArguments) -> Result<RunStatus> {
    let offset = if arguments.midnight { midnight_offset(clock::now(), arguments) } else { TimeDelta::zero() };
    // The audit must use the same business day as the stack.
    clock::set_offset(offset);
    let secret = own_secret();
    let receiver = start_receiver(SocketAddr::from(([127, 0, 0, 1], 0)), &secret, arguments.seconds).await?;
    let settings = stack_settings(arguments, offset, &receiver, &secret);
    let mut stack = DedicatedStack::start(&arguments.load.stores.database_url, &arguments.faults, settings).await?;
    let stores = Stores::connect(stack.stores()).await?;
    let api = stack.stack().api()?;
    let schedule = faults::schedule(&arguments.faults, arguments.seconds * 1_000);
    let result = shop(arguments, &api, async |load| faults::inject(&schedule, &load, &mut stack).await).await?;
    if !schedule.is_empty() {
        output::line(&faults::render(&schedule, &result.injected));
    }
    // On a running stack orders expire after 30 minutes: too long to wait for, and rarely during an audit.
    until_no_unpaid_orders(&stores).await?;
    // The audit of I9 compares stored days, so yesterday must be one.
    if arguments.midnight {
        persist_yesterday(&stack, &stores).await?;
    }
    let status = conclude(arguments, &stores, &result, Some((&receiver, 0))).await?;
    stores.close().await;
    stack.stop(status == RunStatus::Failed).await?;
    Ok(status)
}

fn stack_settings(
    arguments: &ShopArguments,
    offset: TimeDelta,
    receiver: &Receiver,
    secret: &SecretString,
) -> ExtraSettings {
    vec![
        ("ORDER_EXPIRY_SECONDS", ORDER_EXPIRY.as_secs().to_string()),
        ("TIME_ZONE", arguments.settings.time_zone.to_string()),
        ("CLOCK_OFFSET_SECONDS", offset.num_seconds().to_string()),
        ("DATA_PLATFORM_URL", receiver.url(Recipient::DataPlatform.name())),
        ("NOTIFICATION_URL", receiver.url(Recipient::Notifications.name())),
        ("WEBHOOK_SECRET", secret.expose_secret().to_owned()),
    ]
}

/// Persists the day that ended. The worker's own job may hold the lease, so this is retried.
async fn persist_yesterday(stack: &DedicatedStack, stores: &Stores) -> Result<()> {
    wait::until("the stored sales of yesterday", Duration::from_mins(1), Duration::from_secs(1), async || {
        stack.stack().command_worker(&["job", "persist-daily-sales"]).await?;
        Ok(count(stores, "SELECT COUNT(*) FROM product_daily_sales").await? > 0)
    })
    .await
}

async fn count(stores: &Stores, sql: &'static str) -> Result<i64> {
    sqlx::query_scalar(sql).fetch_one(&stores.database.pool()).await.context(sql)
}

/// The clock offset that puts midnight into the middle of the load.
fn midnight_offset(now: Timestamp, arguments: &ShopArguments) -> TimeDelta {
    let zone = arguments.settings.time_zone;
    let midnight = start_of(days_after(business_day(now, zone), 1), zone);
    let middle = now + STARTUP_ESTIMATE + Duration::from_secs(arguments.seconds) / 2;
    // A midnight that comes before the middle is missed: the one after it is used.
    let days = if midnight < middle { TimeDelta::days(1) } else { TimeDelta::zero() };
    (midnight - middle + days).max(TimeDelta::zero())
}

/// A receiver of both sinks that fails now and then.
async fn start_receiver(address: SocketAddr, secret: &SecretString, seconds: u64) -> Result<Receiver> {
    let secrets = WebhookSecrets::parse(secret).context("the webhook secret")?;
    let outage = Some(Outage { after: Duration::from_secs(seconds / 3), duration: OUTAGE_DURATION });
    let faults = receiver::Faults { refuse_one_in: Some(REFUSE_ONE_IN), outage, ..receiver::Faults::default() };
    Receiver::start(address, secrets, faults, None).await
}

/// A secret for this run only.
fn own_secret() -> SecretString {
    // 64 hexadecimal digits are valid base64 of 48 bytes.
    format!("whsec_{}{}", new_uuid().simple(), new_uuid().simple()).into()
}

/// Runs all users, and `faults` at the same time.
async fn shop(
    arguments: &ShopArguments,
    api: &Api,
    faults: impl AsyncFnOnce(Elapsed) -> Result<Vec<Injected>>,
) -> Result<ShopResult> {
    let (products, campaigns) = environment::open(api, arguments.products, arguments.users).await?;
    let began = Instant::now();
    let end = began + Duration::from_secs(arguments.seconds);
    let mut shop = ShopState::new(products, campaigns, end, arguments.load.seed);
    shop.has_faults = arguments.faults.total() > 0;
    let shop = Arc::new(shop);
    let run = GooseRun {
        api_url: api.base(),
        users: arguments.users as usize,
        request_timeout: scenario::REQUEST_TIMEOUT,
        report: arguments.load.report.as_deref(),
    };
    let progress = output::progress(arguments.seconds, "seconds");
    // The first error ends the load: a run without restocks or faults would prove less than it claims.
    let (elapsed, (), (), injected) = tokio::try_join!(
        async {
            run.execute("shop", scenario::transaction(Arc::clone(&shop))).await?;
            Ok(began.elapsed())
        },
        environment::restock(api, &shop),
        environment::show_time(&progress, end),
        faults(Elapsed { began, end }),
    )?;
    progress.finish_and_clear();
    let record = shop.with_record(std::mem::take);
    Ok(ShopResult { record, campaigns: shop.campaigns.clone(), elapsed, injected })
}

/// An order that expires during the audit would be a command on a stream, so the audit waits until none is unpaid.
async fn until_no_unpaid_orders(stores: &Stores) -> Result<()> {
    let timeout = ORDER_EXPIRY + Duration::from_mins(1);
    wait::until("the expiry of all unpaid orders", timeout, Duration::from_millis(200), async || {
        Ok(count(stores, "SELECT COUNT(*) FROM orders WHERE status = 'DEPOSIT_WAIT'").await? == 0)
    })
    .await
}

/// Waits until the stack is drained, audits, and prints the report. The receiver must have recorded the events after
/// the given sequence.
async fn conclude(
    arguments: &ShopArguments,
    stores: &Stores,
    result: &ShopResult,
    receiver: Option<(&Receiver, u64)>,
) -> Result<RunStatus> {
    let began = Instant::now();
    let timeout = arguments.load.drain_timeout();
    output::line(&report::render(result));
    // In this order: a claim that is confirmed is one more event to deliver, and the receiver's record is read last.
    for coupon in &result.campaigns {
        audit::until_confirmed(stores, *coupon, timeout).await?;
    }
    audit::until_drained(stores, timeout).await;
    let deliveries = receiver.map(|(receiver, recorded_after)| Deliveries { recorded_after, ..receiver.deliveries() });
    let evidence = Evidence { client: Some(&result.record), deliveries: deliveries.as_ref() };
    let report = audit::audit_shop(stores, arguments.settings, evidence).await?;
    output::line(&report.render());
    let mut differences = report.differences();
    for coupon in &result.campaigns {
        let report = audit::audit_drained(stores, *coupon, timeout, result.record.claims.get(coupon)).await?;
        output::line(&report.render());
        differences += report.differences();
    }
    output::line(&format!("\ndrained and audited in {:.1} s", began.elapsed().as_secs_f64()));
    Ok(audit::conclude(differences))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        shop: ShopArguments,
    }

    fn arguments(more: &[&str]) -> ShopArguments {
        Line::parse_from(["shop", "--database-url=mysql://h/dibs", "--seconds=60"].iter().chain(more)).shop
    }

    /// The offset at `time` of a day in Seoul, whose midnight is 15:00 UTC.
    fn offset_at(time: &str) -> i64 {
        let now = DateTime::parse_from_rfc3339(&format!("2026-01-01T{time}Z")).expect("a time");
        midnight_offset(now.into(), &arguments(&["--time-zone=Asia/Seoul"])).num_seconds()
    }

    #[test]
    fn midnight_falls_into_the_middle_of_the_load() {
        // 10 s to start and half of 60 s.
        assert_eq!(offset_at("14:00:00"), 3_600 - 40);
        assert_eq!(offset_at("14:59:20"), 0);
        assert_eq!(offset_at("14:59:50"), 24 * 3_600 - 30);
    }

    #[test]
    fn a_secret_of_the_run_is_valid_and_used_once() {
        let (one, other) = (own_secret(), own_secret());
        assert!(WebhookSecrets::parse(&one).is_ok());
        assert_ne!(one.expose_secret(), other.expose_secret());
    }

    #[tokio::test]
    async fn the_stack_sends_its_webhooks_to_the_receiver_of_the_run() {
        let (secret, anywhere) = (own_secret(), SocketAddr::from(([127, 0, 0, 1], 0)));
        let receiver = start_receiver(anywhere, &secret, 60).await.expect("a receiver");
        let settings = stack_settings(&arguments(&[]), TimeDelta::seconds(7), &receiver, &secret);
        let value = |name| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        assert_eq!(value("CLOCK_OFFSET_SECONDS"), Some("7"));
        assert_eq!(value("ORDER_EXPIRY_SECONDS"), Some("20"));
        assert_eq!(value("NOTIFICATION_URL"), Some(&*format!("http://{}/notifications", receiver.address)));
        assert_eq!(value("DATA_PLATFORM_URL"), Some(&*format!("http://{}/data-platform", receiver.address)));
        assert_eq!(value("WEBHOOK_SECRET"), Some(secret.expose_secret()));
    }
}
