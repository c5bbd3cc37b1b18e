//! A receiver of webhooks: checks what comes, records each arrival, and fails as it is told to.

mod faults;
mod server;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use dibs_common::integrations::webhooks::WebhookSecrets;
pub use faults::Faults;
use secrecy::SecretString;
pub use server::Receiver;

use crate::{Verdict, numbers::grouped, output};

/// How to receive.
#[derive(Debug, Args)]
pub struct ReceiverArguments {
    /// Address to listen on; a sink is told by the end of the path, such as /data-platform
    #[arg(long, default_value = "127.0.0.1:8090")]
    pub address: SocketAddr,
    /// The worker's `WEBHOOK_SECRET`
    #[arg(long, env = "WEBHOOK_SECRET", hide_env_values = true)]
    pub secret: SecretString,
    /// Add a line there for each arrival; `audit --deliveries` reads it
    #[arg(long)]
    pub record: Option<PathBuf>,
    /// Answer one of so many with 503
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub refuse_one_in: Option<u16>,
    /// Answer only after so many milliseconds
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub slow_milliseconds: u64,
    /// Be away so many seconds after the start
    #[arg(long, requires = "away_for_seconds")]
    pub away_after_seconds: Option<u64>,
    /// Be away for so many seconds
    #[arg(long, requires = "away_after_seconds")]
    pub away_for_seconds: Option<u64>,
}

/// Receives until it is stopped, and says now and then what has come.
pub async fn run(arguments: ReceiverArguments) -> Result<Verdict> {
    let secrets = WebhookSecrets::parse(&arguments.secret).context("the secret")?;
    let away = arguments.away_after_seconds.zip(arguments.away_for_seconds);
    let faults = Faults {
        refuse_one_in: arguments.refuse_one_in,
        slow: Duration::from_millis(arguments.slow_milliseconds),
        away: away.map(|(after, lasting)| (Duration::from_secs(after), Duration::from_secs(lasting))),
    };
    let receiver = Receiver::start(arguments.address, secrets, faults, arguments.record.as_deref()).await?;
    output::note(&format!("a receiver listens on http://{}/data-platform and /notifications", receiver.address));
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (mut came, mut faults) = (0, 0);
        for sink in receiver.deliveries().sinks.values() {
            came += sink.arrivals;
            faults += sink.faults.count();
        }
        if came != before {
            output::note(&format!("{} arrivals, {} of them faulty", grouped(came), grouped(faults)));
            before = came;
        }
    }
}
