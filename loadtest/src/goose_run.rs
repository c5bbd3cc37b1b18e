//! One goose run: the arguments and the configuration that the burst and the shop share.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use goose::{client::GooseClientBuilder, config::GooseConfiguration, prelude::*};
use secrecy::SecretString;

use crate::{api::Api, stores::StoreArguments};

/// Arguments of every command that loads a stack.
#[derive(Debug, Args)]
pub struct LoadArguments {
    /// Seed of all random choices: the same seed makes the same choices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds that the worker may take after the load to empty the streams; what is left then fails the audit
    #[arg(long, default_value_t = 120)]
    pub drain_seconds: u64,
    /// Write goose's HTML report to this file
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Base URL of the running stack's API
    #[arg(long, env, default_value = "http://127.0.0.1:8080")]
    pub api_url: String,
    /// `ADMIN_TOKEN` of the running stack: the run creates its own campaigns and products
    #[arg(long, env, hide_env_values = true, default_value = "", hide_default_value = true)]
    pub admin_token: SecretString,
    /// MySQL and Redis of the running stack.
    #[command(flatten)]
    pub stores: StoreArguments,
}

impl LoadArguments {
    /// The administrator's client of the running stack.
    pub fn api(&self) -> Result<Api> {
        Api::new(&self.api_url, self.admin_token.clone())
    }

    pub const fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

/// How goose drives its users.
pub struct GooseRun<'a> {
    pub api_url: &'a str,
    /// Goose users, each with one request in flight: a closed model.
    pub users: usize,
    pub request_timeout: Duration,
    /// The file of goose's HTML report.
    pub report: Option<&'a Path>,
}

impl GooseRun<'_> {
    /// Starts all users at once. Each runs `transaction` once; the run ends with the last of them.
    pub async fn execute(&self, name: &str, transaction: TransactionFunction) -> Result<()> {
        let client = GooseClientBuilder::new().without_cookies().timeout(self.request_timeout);
        let scenario = Scenario::new(name).register_transaction(Transaction::new(transaction).set_name(name));
        let attack = GooseAttack::initialize_with_config(self.configuration()).context("configuring goose")?;
        let attack = attack.set_client_builder_without_cookies(client).context("configuring goose's HTTP client")?;
        // Boxed: the future of goose is several kilobytes.
        Box::pin(attack.register_scenario(scenario).execute()).await.context("running goose")?;
        Ok(())
    }

    fn configuration(&self) -> GooseConfiguration {
        let mut configuration = GooseConfiguration::default();
        configuration.host = Some(self.api_url.to_owned());
        configuration.users = Some(self.users);
        // The default starts one user a second.
        configuration.increase_rate = Some((self.users * 100).to_string());
        configuration.iterations = Some(1);
        // Goose must neither print nor open a control port: the tables of this program are the output.
        configuration.quiet = 1;
        configuration.no_telnet = true;
        // Decompression would cost the client more than the server.
        configuration.no_gzip = true;
        configuration.no_print_metrics = true;
        configuration.no_metrics = self.report.is_none();
        configuration.report_file = self.report.iter().map(|path| path.display().to_string()).collect();
        configuration
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(report: Option<&Path>) -> GooseConfiguration {
        GooseRun { api_url: "http://h", users: 7, request_timeout: Duration::from_secs(1), report }.configuration()
    }

    #[test]
    fn all_users_start_within_a_hundredth_of_a_second_and_run_once() {
        let configuration = run(None);
        assert_eq!((configuration.users, configuration.iterations), (Some(7), Some(1)));
        assert_eq!(configuration.increase_rate.as_deref(), Some("700"));
        assert_eq!(configuration.host.as_deref(), Some("http://h"));
    }

    #[test]
    fn metrics_are_collected_only_for_a_report() {
        assert!(run(None).no_metrics && run(None).report_file.is_empty());
        let with_report = run(Some(Path::new("load.html")));
        assert!(!with_report.no_metrics);
        assert_eq!(with_report.report_file, ["load.html"]);
    }

    #[tokio::test]
    async fn every_user_runs_the_transaction_once_and_goose_writes_its_report() {
        let router = axum::Router::new().fallback(async || "x");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let api_url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let path = std::env::temp_dir().join(format!("dibs-goose-{}.html", dibs_common::identifiers::new_uuid()));
        let runs = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = std::sync::Arc::clone(&runs);
        let transaction: TransactionFunction = std::sync::Arc::new(move |user| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Box::pin(async move {
                let _response = user.get("/x").await?;
                Ok(())
            })
        });
        let (request_timeout, report) = (Duration::from_secs(5), Some(path.as_path()));
        GooseRun { api_url: &api_url, users: 3, request_timeout, report }
            .execute("x", transaction)
            .await
            .expect("a run");
        assert_eq!(runs.load(std::sync::atomic::Ordering::Relaxed), 3);
        let html = std::fs::read_to_string(&path).expect("a report");
        assert!(html.contains("<html") && html.contains("/x"));
        std::fs::remove_file(path).expect("removed");
    }
}
