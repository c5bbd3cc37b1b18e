//! A webhook receiver: verifies every message, records each delivery attempt, and fails on demand.

mod faults;
mod server;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use dibs_common::integrations::webhooks::WebhookSecrets;
pub use faults::{Faults, Outage};
use secrecy::SecretString;
pub use server::Receiver;

use crate::{RunStatus, numbers::grouped, output, record::Deliveries};

const REPORT_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct ReceiverArguments {
    /// Address to listen on; the URL's path names the sink, such as /data-platform
    #[arg(long, default_value = "127.0.0.1:8090")]
    pub address: SocketAddr,
    /// `WEBHOOK_SECRET` of the worker
    #[arg(long, env = "WEBHOOK_SECRET", hide_env_values = true)]
    pub secret: SecretString,
    /// Append a JSON line for each delivery attempt to this file; `audit --deliveries` reads it
    #[arg(long)]
    pub record: Option<PathBuf>,
    /// Answer one of so many messages with 503
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub refuse_one_in: Option<u16>,
    /// Delay every response by so many milliseconds
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub delay_milliseconds: u64,
    /// Begin an outage, in which every message is answered with 503, so many seconds after the start
    #[arg(long, requires = "outage_seconds")]
    pub outage_after_seconds: Option<u64>,
    /// Duration of the outage
    #[arg(long, requires = "outage_after_seconds")]
    pub outage_seconds: Option<u64>,
}

impl ReceiverArguments {
    fn faults(&self) -> Faults {
        let outage = self.outage_after_seconds.zip(self.outage_seconds);
        Faults {
            refuse_one_in: self.refuse_one_in,
            delay: Duration::from_millis(self.delay_milliseconds),
            outage: outage.map(|(after, duration)| Outage {
                after: Duration::from_secs(after),
                duration: Duration::from_secs(duration),
            }),
        }
    }
}

/// Receives until the process is stopped. Prints the number of attempts when it changes.
pub async fn run(arguments: ReceiverArguments) -> Result<RunStatus> {
    let secrets = WebhookSecrets::parse(&arguments.secret).context("the secret")?;
    let receiver = Receiver::start(arguments.address, secrets, arguments.faults(), arguments.record.as_deref()).await?;
    output::note(&format!("listening on http://{}/data-platform and /notifications", receiver.address));
    // Silent until the first attempt, and while nothing changes.
    let mut printed = summary(&Deliveries::default());
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        let summary = summary(&receiver.deliveries());
        if summary != printed {
            output::note(&summary);
            printed = summary;
        }
    }
}

fn summary(deliveries: &Deliveries) -> String {
    let (mut attempts, mut faults) = (0, 0);
    for sink in deliveries.sinks.values() {
        attempts += sink.attempts;
        faults += sink.faults.count();
    }
    format!("{} delivery attempts, {} of them invalid", grouped(attempts), grouped(faults))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        receiver: ReceiverArguments,
    }

    fn faults(more: &[&str]) -> Faults {
        Line::parse_from(["receiver", "--secret=whsec_x"].iter().chain(more)).receiver.faults()
    }

    #[test]
    fn a_receiver_fails_only_on_demand() {
        assert_eq!(faults(&[]), Faults::default());
        let outage = Outage { after: Duration::from_secs(3), duration: Duration::from_secs(4) };
        assert_eq!(
            faults(&["--refuse-one-in=5", "--delay-milliseconds=7", "--outage-after-seconds=3", "--outage-seconds=4"]),
            Faults { refuse_one_in: Some(5), delay: Duration::from_millis(7), outage: Some(outage) }
        );
    }

    #[test]
    fn the_attempts_of_all_sinks_are_summed_up() {
        let mut deliveries = Deliveries::default();
        assert_eq!(summary(&deliveries), "0 delivery attempts, 0 of them invalid");
        deliveries.sinks.entry("data-platform".into()).or_default().attempts = 1_200;
        let sink = deliveries.sinks.entry("notifications".into()).or_default();
        sink.attempts = 34;
        sink.faults.add("no timestamp".into());
        assert_eq!(summary(&deliveries), "1,234 delivery attempts, 1 of them invalid");
    }
}
