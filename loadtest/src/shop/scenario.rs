//! Shopping as a goose scenario: every goose user is one user of the shop.

use std::{path::Path, sync::Arc, time::Duration};

use dibs_common::identifiers::UserId;
use goose::{client::GooseClientBuilder, config::GooseConfiguration, prelude::*};

use super::{market::Market, shopper::Shopper, visit::Visit};
use crate::{
    dice::Dice,
    failure::{Context, Result},
};

/// Longer than any answer may take: a call waits up to 3 s for its outcome.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// How goose brings the users.
pub struct Crowd<'a> {
    /// The API.
    pub api_url: &'a str,
    /// How many users.
    pub users: usize,
    /// Where goose's report goes.
    pub report: Option<&'a Path>,
}

/// Lets all users shop until the market closes.
pub async fn shop(market: Arc<Market>, crowd: Crowd<'_>) -> Result<()> {
    let visit: TransactionFunction = Arc::new(move |goose| {
        let market = Arc::clone(&market);
        Box::pin(async move { visit(market, goose).await })
    });
    let client = GooseClientBuilder::new().without_cookies().timeout(REQUEST_LIMIT);
    let scenario = Scenario::new("shop").register_transaction(Transaction::new(visit).set_name("visit"));
    let goose = GooseAttack::initialize_with_config(configuration(&crowd)).context("setting goose up")?;
    let goose = goose.set_client_builder_without_cookies(client).context("setting goose up")?;
    Box::pin(goose.register_scenario(scenario).execute()).await.context("goose")?;
    Ok(())
}

async fn visit(market: Arc<Market>, goose: &mut GooseUser) -> TransactionResult {
    let number = goose.weighted_users_index as u64 + 1;
    let Ok(user) = UserId::try_from(number) else { return Ok(()) };
    let dice = Dice::of(market.seed, number);
    Shopper::new(Visit { market, user, dice, goose }).shop().await
}

/// All users at once, each for one visit, and nothing that goose would print or listen on.
fn configuration(crowd: &Crowd<'_>) -> GooseConfiguration {
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(crowd.api_url.to_owned());
    configuration.users = Some(crowd.users);
    // Goose's default is to start one user a second.
    configuration.increase_rate = Some((crowd.users * 100).to_string());
    configuration.iterations = Some(1);
    configuration.quiet = 1;
    configuration.no_telnet = true;
    configuration.no_gzip = true;
    configuration.no_print_metrics = true;
    configuration.no_metrics = crowd.report.is_none();
    configuration.report_file = crowd.report.iter().map(|path| path.display().to_string()).collect();
    configuration
}
