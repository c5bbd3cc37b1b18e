//! What the pages that move show, read once a second for all browsers.

use std::collections::{HashMap, VecDeque};

use chrono::TimeDelta;
use chrono_tz::Tz;
use dibs_common::{
    clock::{self, Timestamp},
    db::{self, Database, console::SinkRow},
    domain::campaign::{Campaign, CampaignState, CampaignStatus},
    identifiers::CouponId,
    live::{self, DriftNote, ProcessKind, ProcessReport, Rates, Series, SinkReport, TestResult},
    redis::{
        Redis, campaign_state,
        streams::{self, ClaimEntry, ClaimStream},
    },
};
use futures::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};

use super::{
    alerts::{self, Alert},
    words::Words,
};

/// Campaigns that open later are not shown.
const OPENS_WITHIN: TimeDelta = TimeDelta::days(1);
/// Campaigns that are shown; those that open first.
pub const MAX_CAMPAIGNS: usize = 30;
/// Campaigns that are read for that.
const MAX_READ: u32 = 500;
/// Over how many readings the rate of a sink is taken.
const RATE_READINGS: usize = 15;

/// Everything, as of one second.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub at: Timestamp,
    pub zone: Tz,
    pub campaigns: Vec<LiveCampaign>,
    /// There are more than are shown.
    pub has_more: bool,
    pub processes: Vec<ProcessReport>,
    /// Why MySQL cannot be used; none when it can.
    pub mysql: Option<String>,
    pub redis: Option<String>,
    pub sinks: Vec<LiveSink>,
    pub dead_letters: u64,
    pub alerts: Vec<Alert>,
}

impl Snapshot {
    pub fn count(&self, kind: ProcessKind) -> usize {
        self.processes.iter().filter(|process| process.kind == kind && !process.is_missing(self.at)).count()
    }

    pub fn missing(&self) -> impl Iterator<Item = &ProcessReport> {
        self.processes.iter().filter(|process| process.is_missing(self.at))
    }

    /// Of all campaigns that are shown.
    pub fn rates(&self) -> Rates {
        self.campaigns.iter().fold(Rates::default(), |mut sum, campaign| {
            sum += campaign.rates;
            sum
        })
    }
}

#[derive(Clone, Debug)]
pub struct LiveCampaign {
    pub campaign: Campaign,
    pub status: CampaignStatus,
    /// As Redis counts; none when it does not hold the campaign.
    pub claimed: Option<u32>,
    pub capacity: u32,
    pub remaining: u32,
    /// Accepted and not issued.
    pub unconfirmed: u32,
    pub rates: Rates,
    /// Sums of five seconds, over a quarter of an hour.
    pub points: Vec<Rates>,
    pub lag_p50_millis: Option<u32>,
    pub lag_p99_millis: Option<u32>,
    /// Entries on the stream of its partition, and how long the oldest waits.
    pub backlog: Option<(u64, u64)>,
    pub drift: Option<DriftNote>,
    /// Terms that Redis enforces otherwise.
    pub different_terms: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub struct LiveSink {
    pub row: SinkRow,
    /// How the process that serves it is; none when no process does.
    pub report: Option<SinkReport>,
    pub lag: TimeDelta,
    /// Events a second; none before there are two readings.
    pub rate: Option<f64>,
    /// The last test message.
    pub test: Option<TestResult>,
}

impl LiveSink {
    pub const fn behind(&self) -> u64 {
        self.row.last_sequence.saturating_sub(self.row.delivered_through)
    }

    pub fn is_good(&self) -> bool {
        self.report.as_ref().is_some_and(|report| !report.is_circuit_open && !report.is_failing)
    }

    /// What is wrong with it, in words.
    pub fn trouble(&self, words: &Words) -> String {
        let state = match &self.report {
            Some(report) if report.is_circuit_open => "circuit_open",
            Some(_) => "failing",
            None => "unserved",
        };
        words.named("sink_state", state)
    }
}

/// Reads snapshots, and remembers what does not change.
pub struct Reader {
    database: Database,
    redis: Redis,
    zone: Tz,
    series: HashMap<CouponId, Series>,
    progress: HashMap<String, VecDeque<(Timestamp, u64)>>,
    last: Vec<Campaign>,
}

impl Reader {
    pub fn new(database: &Database, redis: &Redis, zone: Tz) -> Self {
        let (database, redis) = (database.clone(), redis.clone());
        Self { database, redis, zone, series: HashMap::new(), progress: HashMap::new(), last: Vec::new() }
    }

    /// After a pause: what was read before it is of no use.
    pub fn forget(&mut self) {
        self.series.clear();
        self.progress.clear();
    }

    pub async fn read(&mut self) -> Snapshot {
        let now = clock::now();
        let (mysql, redis) = tokio::join!(self.database.ping(), self.redis.ping());
        let pool = &self.database.pool();
        if mysql.is_ok()
            && let Ok(listed) = db::within(db::campaigns::list_not_ended(pool, now, None, MAX_READ)).await
        {
            self.last = listed.into_iter().filter(|campaign| is_current(campaign, now)).collect();
            self.last.sort_by_key(|campaign| (campaign.terms.opens_at, campaign.id));
        }
        let has_more = self.last.len() > MAX_CAMPAIGNS;
        let shown: Vec<Campaign> = self.last.iter().take(MAX_CAMPAIGNS).cloned().collect();
        self.series.retain(|coupon, _| shown.iter().any(|campaign| campaign.id == *coupon));
        let mut reading = Vec::new();
        for campaign in shown {
            let series = self.series.remove(&campaign.id).unwrap_or_default();
            reading.push(read_campaign(self.redis.clone(), campaign, series, now));
        }
        let mut campaigns = Vec::new();
        for (campaign, series) in join_all(reading).await {
            self.series.insert(campaign.campaign.id, series);
            campaigns.push(campaign);
        }
        // What is down is asked once: each further question would wait as long again.
        let processes = match &redis {
            Ok(()) => live::list_processes(&self.redis).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let (rows, dead_letters) = if mysql.is_ok() { self.read_rows().await } else { (Vec::new(), 0) };
        let mut sinks = self.sinks(rows, &processes, now);
        if redis.is_ok() {
            for sink in &mut sinks {
                sink.test = live::last_test(&self.redis, &sink.row.name).await.ok().flatten();
            }
        }
        let mut snapshot = Snapshot {
            at: now,
            zone: self.zone,
            campaigns,
            has_more,
            processes,
            mysql: mysql.err().map(|error| error.chain()),
            redis: redis.err().map(|error| error.chain()),
            sinks,
            dead_letters,
            alerts: Vec::new(),
        };
        snapshot.alerts = alerts::holding(&snapshot);
        snapshot
    }

    /// The sinks, and how many letters are dead.
    async fn read_rows(&self) -> (Vec<SinkRow>, u64) {
        let pool = &self.database.pool();
        let sinks = db::within(db::console::list_sinks(pool)).await.unwrap_or_default();
        (sinks, db::within(db::console::count_dead_letters(pool)).await.unwrap_or_default())
    }

    fn sinks(&mut self, rows: Vec<SinkRow>, processes: &[ProcessReport], now: Timestamp) -> Vec<LiveSink> {
        let mut sinks = Vec::new();
        for row in rows {
            let readings = self.progress.entry(row.name.clone()).or_default();
            readings.push_back((now, row.delivered_through));
            if readings.len() > RATE_READINGS {
                readings.pop_front();
            }
            let rate = rate(readings);
            let live = processes.iter().filter(|process| !process.is_missing(now));
            let reports = live.flat_map(|process| &process.sinks).filter(|report| report.name == row.name);
            // Of several that have served it, the last one does.
            let report = reports.max_by_key(|report| report.served_at.max(report.last_error_at.unwrap_or_default()));
            let lag = row.waiting_since.map_or(TimeDelta::zero(), |since| now - since);
            sinks.push(LiveSink { report: report.cloned(), lag, rate, test: None, row });
        }
        sinks
    }
}

/// Open, or to be opened soon.
fn is_current(campaign: &Campaign, now: Timestamp) -> bool {
    campaign.state != CampaignState::Closed && campaign.terms.opens_at <= now + OPENS_WITHIN
}

#[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
fn rate(readings: &VecDeque<(Timestamp, u64)>) -> Option<f64> {
    let ((first_at, first), (last_at, last)) = (readings.front()?, readings.back()?);
    let seconds = (*last_at - *first_at).num_milliseconds() as f64 / 1_000.0;
    (seconds > 0.5).then(|| last.saturating_sub(*first) as f64 / seconds)
}

/// The numbers of a campaign. Boxed: many are read at once.
pub fn read_campaign(
    redis: Redis,
    campaign: Campaign,
    series: Series,
    now: Timestamp,
) -> BoxFuture<'static, (LiveCampaign, Series)> {
    read_now(redis, campaign, series, now).boxed()
}

async fn read_now(redis: Redis, campaign: Campaign, mut series: Series, now: Timestamp) -> (LiveCampaign, Series) {
    let (partition, coupon) = (campaign.partition, campaign.id);
    let refreshing = series.refresh(&redis, coupon, now);
    let (held, refreshed, entries, oldest, drift) = tokio::join!(
        campaign_state::compare(&redis, &campaign),
        refreshing,
        streams::len::<ClaimEntry>(&redis, partition),
        ClaimStream::oldest(&redis, partition),
        live::find_drift(&redis, coupon),
    );
    if let Err(error) = refreshed {
        tracing::debug!(cause = error.chain(), "live counts not read");
    }
    let held = held.ok();
    let claimed = held.as_ref().and_then(|held| held.counts).map(|(claimed, _)| claimed);
    let capacity = campaign.capacity();
    let counted = claimed.unwrap_or(campaign.issued);
    let waits = |oldest: Option<Timestamp>| oldest.map_or(0, |oldest| (now - oldest).num_milliseconds().max(0));
    let backlog = entries.ok().zip(oldest.ok()).map(|(entries, oldest)| (entries, waits(oldest).unsigned_abs()));
    let live = LiveCampaign {
        status: campaign.status(counted, now),
        claimed,
        capacity,
        remaining: capacity.saturating_sub(counted),
        unconfirmed: claimed.map_or(0, |claimed| claimed.saturating_sub(campaign.issued)),
        rates: series.now(now),
        points: series.points(now, 5),
        lag_p50_millis: series.lag_millis(now, 50),
        lag_p99_millis: series.lag_millis(now, 99),
        backlog,
        drift: drift.ok().flatten(),
        // A campaign that is missing has an alert of its own.
        different_terms: held.filter(|held| held.exists).map(|held| held.different).unwrap_or_default(),
        campaign,
    };
    (live, series)
}
