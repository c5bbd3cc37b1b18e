use std::{ops::RangeInclusive, sync::LazyLock};

use chrono_tz::Tz;
use fred::types::{Value, scripts::Script};

use super::{
    Contract, integer, run,
    sales_changes::{Days, with_sales_changes},
    unexpected,
};
use crate::{
    domain::{event::Epoch, ranking::SalesChange},
    error::Result,
    redis::{Redis, SalesCounted},
};

pub(super) const CONTRACT: Contract = Contract {
    source: with_sales_changes!("../../../../lua/sales_apply.lua"),
    keys: &["applied", "counted", "building", "changed", "day", "window, info"],
    arguments: &["first", "last", "days", "epoch", "expires_at, date", "sequence, day, product, units"],
    codes: &[("GAP", 0), ("APPLIED", 1)],
};
static SCRIPT: LazyLock<Script> = LazyLock::new(|| CONTRACT.script());

/// Counts the changes of all events with these sequences in `epoch`, each once. See `lua/sales_apply.lua`.
pub(in crate::redis) async fn sales_apply(
    redis: &Redis,
    epoch: Epoch,
    sequences: &RangeInclusive<u64>,
    changes: &[(u64, SalesChange)],
    zone: Tz,
) -> Result<SalesCounted> {
    let days = Days::of(changes.iter().map(|(_, change)| change));
    let mut arguments = vec![Value::from(sequences.start().to_string()), sequences.end().to_string().into()];
    arguments.extend([days.len().to_string().into(), epoch.to_string().into()]);
    arguments.extend(days.arguments(zone));
    for (sequence, change) in changes {
        arguments.push(sequence.to_string().into());
        arguments.extend(days.change(change));
    }
    let reply = run(redis, &SCRIPT, days.keys(redis), arguments).await?;
    let applied = u64::try_from(integer(reply.get(1))?).unwrap_or_default();
    match integer(reply.first())? {
        0 => Ok(SalesCounted::Gap { applied }),
        1 => Ok(SalesCounted::Counted),
        _ => Err(unexpected(&reply)),
    }
}
