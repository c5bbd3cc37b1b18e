//! A day in the shop, through goose, and its audit; while the worker is killed if asked.

mod answer;
mod environment;
mod report;
mod scenario;
mod shopper;
mod state;
mod visit;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use chrono::TimeDelta;
use clap::Args;
use dibs_common::{
    clock,
    domain::ranking::{business_day, days_after, start_of},
    identifiers::{CouponId, new_uuid},
    integrations::{messages::Receiver as Recipient, webhooks::WebhookSecrets},
};
use scenario::ClientPool;
use secrecy::{ExposeSecret as _, SecretString};
use state::ShopState;
use tokio::time::Instant;

use crate::{
    Verdict,
    api::Api,
    audit::{self, ShopSettings, Witnesses},
    output,
    processes::OwnStack,
    receiver::{Faults, Receiver},
    record::{Deliveries, ShopRecord},
    stores::{StoreArguments, Stores},
    waiting,
};

/// About how long a stack takes to start.
const STARTING: Duration = Duration::from_secs(10);
/// On a stack of the run's own unpaid orders expire so soon that they do while the run lasts.
const ORDER_EXPIRY: Duration = Duration::from_secs(20);

/// One of so many messages is refused by the receivers of webhooks, and for so long they are away, once, when a third of
/// the time is over.
const REFUSED_ONE_IN: u16 = 50;
const AWAY_FOR: Duration = Duration::from_secs(10);

/// How to shop.
#[derive(Debug, Args)]
pub struct ShopArguments {
    /// How many users shop, each with one call in flight: a closed model
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub users: u32,
    /// How many products there are; one of them takes half of all orders
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub products: u32,
    /// For how long
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Decides what each user does
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Kill the worker every so many seconds, on a stack of the run's own
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub worker_kill_seconds: Option<u64>,
    /// Let midnight come in the middle, by a clock that is ahead; then persist what was sold on the day that is over
    #[arg(long, requires = "worker_kill_seconds")]
    pub midnight: bool,
    /// How long the worker may take afterwards to carry out what is on the streams
    #[arg(long, default_value_t = 120)]
    pub drain_seconds: u64,
    /// What the shop has set.
    #[command(flatten)]
    pub settings: ShopSettings,
    /// Receive the webhooks of the running stack there, and hold what comes against its events: its worker's
    /// `DATA_PLATFORM_URL` is this with /data-platform, its `NOTIFICATION_URL` with /notifications. A stack of the run's
    /// own is received in any case
    #[arg(long, requires = "webhook_secret")]
    pub receiver_address: Option<SocketAddr>,
    /// The `WEBHOOK_SECRET` of the running stack's worker
    #[arg(long, env, hide_env_values = true)]
    pub webhook_secret: Option<SecretString>,
    /// Write goose's report there, as HTML
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// The API of the running stack
    #[arg(long, env, default_value = "http://127.0.0.1:8080")]
    pub api_url: String,
    /// The administrator's token of the running stack, to make products and campaigns with
    #[arg(long, env, hide_env_values = true, default_value = "", hide_default_value = true)]
    pub admin_token: SecretString,
    /// Where the running stack keeps its data
    #[command(flatten)]
    pub stores: StoreArguments,
}

/// What a run came to.
struct Outcome {
    record: ShopRecord,
    campaigns: Vec<CouponId>,
    elapsed: Duration,
    kills: u64,
}

/// Shops, waits, audits, and prints.
pub async fn run(arguments: ShopArguments) -> Result<Verdict> {
    if let Some(every) = arguments.worker_kill_seconds {
        return run_with_kills(&arguments, Duration::from_secs(every)).await;
    }
    let api = Api::new(&arguments.api_url, arguments.admin_token.clone())?;
    let stores = Stores::connect(&arguments.stores).await?;
    let receiver = match (arguments.receiver_address, &arguments.webhook_secret) {
        (Some(address), Some(secret)) => Some(receive(address, secret, arguments.seconds).await?),
        _ => None,
    };
    // Another receiver may have been told what was before.
    let begun_after = audit::last_sequence(stores.database.pool()).await?;
    let outcome = shop(&arguments, &api, async |_| Ok(0)).await?;
    conclude(&arguments, &stores, &outcome, receiver.as_ref().map(|receiver| (receiver, begun_after))).await
}

async fn run_with_kills(arguments: &ShopArguments, every: Duration) -> Result<Verdict> {
    let ahead = if arguments.midnight { ahead(arguments) } else { TimeDelta::zero() };
    clock::set_offset(ahead);
    let secret = own_secret();
    let receiver = receive(SocketAddr::from(([127, 0, 0, 1], 0)), &secret, arguments.seconds).await?;
    let settings = vec![
        ("ORDER_EXPIRY_SECONDS", ORDER_EXPIRY.as_secs().to_string()),
        ("TIME_ZONE", arguments.settings.time_zone.to_string()),
        ("CLOCK_OFFSET_SECONDS", ahead.num_seconds().to_string()),
        ("DATA_PLATFORM_URL", receiver.url(Recipient::DataPlatform.name())),
        ("NOTIFICATION_URL", receiver.url(Recipient::Notifications.name())),
        ("WEBHOOK_SECRET", secret.expose_secret().to_owned()),
    ];
    let mut own = OwnStack::start(&arguments.stores.database_url, settings).await?;
    let stores = Stores::connect(own.stores()).await?;
    let api = own.stack().api()?;
    let outcome = shop(arguments, &api, async |end| environment::kill_worker(&mut own, every, end).await).await?;
    until_nothing_can_expire(&stores).await?;
    if arguments.midnight {
        persist_yesterday(&own, &stores).await?;
    }
    let verdict = conclude(arguments, &stores, &outcome, Some((&receiver, 0))).await?;
    stores.database.close().await;
    stores.redis.close().await;
    own.stop(verdict == Verdict::Wrong).await?;
    Ok(verdict)
}

/// Lets the day that is over be persisted; another process may be at it.
async fn persist_yesterday(own: &OwnStack, stores: &Stores) -> Result<()> {
    let persisted = "SELECT COUNT(*) FROM product_daily_sales";
    waiting::until("the day before is stored", Duration::from_mins(1), Duration::from_secs(1), async || {
        own.stack().command_worker(&["job", "persist-daily-sales"]).await?;
        let rows: i64 = sqlx::query_scalar(persisted).fetch_one(stores.database.pool()).await.context("stored days")?;
        Ok(rows > 0)
    })
    .await
}

/// By how much the clock must be ahead for midnight to come in the middle of the run.
fn ahead(arguments: &ShopArguments) -> TimeDelta {
    let (now, zone) = (clock::now(), arguments.settings.time_zone);
    let midnight = start_of(days_after(business_day(now, zone), 1), zone);
    let middle = now + STARTING + Duration::from_secs(arguments.seconds) / 2;
    // One that is nearer than that is missed, and the one after it comes in the middle.
    (midnight - middle + if midnight < middle { TimeDelta::days(1) } else { TimeDelta::zero() }).max(TimeDelta::zero())
}

/// A receiver of both sinks, which fails now and then.
async fn receive(address: SocketAddr, secret: &SecretString, seconds: u64) -> Result<Receiver> {
    let secrets = WebhookSecrets::parse(secret).context("the webhook secret")?;
    let away = Some((Duration::from_secs(seconds / 3), AWAY_FOR));
    let faults = Faults { refuse_one_in: Some(REFUSED_ONE_IN), away, ..Faults::default() };
    Receiver::start(address, secrets, faults, None).await
}

/// A secret for this run only.
fn own_secret() -> SecretString {
    // 64 hexadecimal digits are the base64 of 48 bytes.
    format!("whsec_{}{}", new_uuid().simple(), new_uuid().simple()).into()
}

/// Lets all users shop, with `faults` beside them.
async fn shop(
    arguments: &ShopArguments,
    api: &Api,
    faults: impl AsyncFnOnce(Instant) -> Result<u64>,
) -> Result<Outcome> {
    let (products, campaigns) = environment::open(api, arguments.products, arguments.users).await?;
    let began = Instant::now();
    let end = began + Duration::from_secs(arguments.seconds);
    let market = Arc::new(ShopState::new(products, campaigns, end, arguments.seed));
    let crowd =
        ClientPool { api_url: api.base(), users: arguments.users as usize, report: arguments.report.as_deref() };
    let progress = output::progress(arguments.seconds, "seconds");
    let (elapsed, (), (), kills) = tokio::try_join!(
        async {
            scenario::shop(Arc::clone(&market), crowd).await?;
            Ok(began.elapsed())
        },
        environment::restock(api, &market),
        environment::show_time(&progress, end),
        faults(end),
    )?;
    progress.finish_and_clear();
    let record = market.with_record(std::mem::take);
    Ok(Outcome { record, campaigns: market.campaigns.clone(), elapsed, kills })
}

/// Orders that expire while the audit looks would be on a stream. An unpaid order is paid, cancelled or expired soon.
async fn until_nothing_can_expire(stores: &Stores) -> Result<()> {
    let unpaid = "SELECT COUNT(*) FROM orders WHERE status = 'DEPOSIT_WAIT'";
    let (limit, every) = (ORDER_EXPIRY + Duration::from_mins(1), Duration::from_millis(200));
    waiting::until("the end of all unpaid orders", limit, every, async || {
        let unpaid: i64 =
            sqlx::query_scalar(unpaid).fetch_one(stores.database.pool()).await.context("counting unpaid orders")?;
        Ok(unpaid == 0)
    })
    .await
}

/// Waits until everything is carried out, audits, and prints. A receiver must have been told what came after a sequence.
async fn conclude(
    arguments: &ShopArguments,
    stores: &Stores,
    outcome: &Outcome,
    receiver: Option<(&Receiver, u64)>,
) -> Result<Verdict> {
    let began = Instant::now();
    let limit = Duration::from_secs(arguments.drain_seconds);
    report::print(outcome);
    // It has to be at rest before the record is looked at. A claim that is confirmed is one more event.
    for coupon in &outcome.campaigns {
        audit::until_confirmed(stores, *coupon, limit).await?;
    }
    audit::until_at_rest(stores, limit).await;
    let deliveries = receiver.map(|(receiver, begun_after)| Deliveries { begun_after, ..receiver.deliveries() });
    let witnesses = Witnesses { client: Some(&outcome.record), deliveries: deliveries.as_ref() };
    let findings = audit::audit_shop(stores, arguments.settings, witnesses).await?;
    findings.print();
    let mut differences = findings.differences();
    for coupon in &outcome.campaigns {
        let findings = audit::audit_at_rest(stores, *coupon, limit, outcome.record.claims.get(coupon)).await?;
        findings.print();
        differences += findings.differences();
    }
    output::line(&format!("\ncarried out and audited in {:.1} s", began.elapsed().as_secs_f64()));
    Ok(audit::verdict(differences))
}
