//! What browsers that show the console's page Now cost the claims.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, header, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinSet;

use super::{
    harness::Harness,
    rates::{PairedMeasurement, PairedRounds, SamplingSettings, USERS_PER_SLICE, Workload, prepare},
};

/// Browsers that show the page.
pub const BROWSERS: usize = 50;

/// The event streams of browsers. They end when this is dropped.
struct Watchers {
    _streams: JoinSet<()>,
}

impl Watchers {
    /// Logs in, opens the streams, and reads each to its end. Returns when each has its first event.
    async fn open(address: SocketAddr, token: &SecretString) -> Result<Self> {
        let client = Client::builder().redirect(redirect::Policy::none()).build().context("creating a client")?;
        let base = format!("http://{address}/console");
        let form = client.get(format!("{base}/login")).send().await.context("opening the console")?;
        let cookie = cookie_of(&form).context("the form to log in has no cookie")?;
        let csrf = cookie.split_once('=').map(|(_, value)| value).unwrap_or_default();
        let fields = format!("csrf={csrf}&token={}&next=", token.expose_secret());
        let request = client.post(format!("{base}/login")).header(header::COOKIE, &cookie).body(fields);
        let logged_in = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").send().await;
        let session = cookie_of(&logged_in.context("logging in")?).context("not logged in")?;
        let mut streams = JoinSet::new();
        for _ in 0..BROWSERS {
            let request = client.get(format!("{base}/events?view=now")).header(header::COOKIE, &session);
            let mut stream = request.send().await.context("opening the events")?;
            ensure!(stream.status().is_success(), "the events were answered {}", stream.status());
            stream.chunk().await.context("reading the first event")?;
            streams.spawn(async move { while let Ok(Some(_)) = stream.chunk().await {} });
        }
        Ok(Self { _streams: streams })
    }
}

/// The last cookie that a response sets, as a request sends it back.
fn cookie_of(response: &reqwest::Response) -> Option<String> {
    let cookie = response.headers().get_all(header::SET_COOKIE).iter().next_back()?;
    cookie.to_str().ok()?.split(';').next().map(str::to_owned)
}

/// Measures a round of accepted claims without browsers, in turn with the same beside them.
pub async fn measure(harness: &mut Harness, sampling: SamplingSettings, rounds: &mut PairedRounds) -> Result<()> {
    let (campaign, mut target) = prepare(harness, Workload::Accepted).await?;
    let mut pair = PairedMeasurement::default();
    for _ in 0..sampling.slices {
        pair.baseline.append(&sampling.measure(target).await?);
        target.first_user += USERS_PER_SLICE;
        let watchers = Watchers::open(harness.api_address(), harness.token()).await?;
        pair.dibs.append(&sampling.measure(target).await?);
        target.first_user += USERS_PER_SLICE;
        drop(watchers);
    }
    rounds.add(&pair);
    harness.expect_alive()?;
    harness.retire(campaign).await
}
