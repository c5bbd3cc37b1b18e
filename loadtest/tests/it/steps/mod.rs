//! Every message of every operation, struck: the proxies before MySQL and Redis count the messages, and for every
//! number the connection is cut before that message, cut after it, or frozen there. Then the system is left to recover,
//! and the invariants are audited.
//!
//! The short form runs with all tests. `make steps` runs the exhaustive one and prints its table.

mod operation;
mod world;

use std::time::Duration;

use dibs_common::testing::{MessageFault, Struck};
use dibs_loadtest::output::{self, Table};
use futures::future::join_all;
use operation::Operation;
use strum::{EnumIter, IntoEnumIterator as _};
use tokio::{sync::Semaphore, time::sleep_until};
use world::World;

/// Longer than the time limits of the programs for statements and commands.
const FREEZE: Duration = Duration::from_secs(5);
/// Worlds at once: each has a database and some connections of its own.
const CONCURRENCY: usize = 10;

/// A network: of a program, to a server. Apart, so that the order of its messages is that of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter)]
enum Network {
    ApiToDatabase,
    ApiToRedis,
    WorkerToDatabase,
    WorkerToRedis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    CutBefore,
    CutAfter,
    Freeze,
}

impl Fault {
    fn of_message(self) -> MessageFault {
        match self {
            Self::CutBefore => MessageFault::CutBefore,
            Self::CutAfter => MessageFault::CutAfter,
            Self::Freeze => MessageFault::Freeze(FREEZE),
        }
    }
}

/// The messages of an operation that are struck, one after the other, each in an operation of its own.
#[derive(Clone, Copy, Debug)]
struct Chain {
    operation: Operation,
    network: Network,
    fault: Fault,
    first: u64,
    /// Only every so many messages.
    stride: u64,
}

/// The outcome of one operation.
struct Row {
    step: u64,
    /// The message that was struck.
    message: String,
    /// The responses to the caller, one after the other.
    received: String,
    durable: String,
    differences: Vec<String>,
}

/// Strikes message after message, until one has a number that the operation does not reach.
async fn strike(chain: Chain) -> Vec<Row> {
    let Chain { operation, network, fault, first, stride } = chain;
    let (mut world, mut rows) = (World::new().await, Vec::new());
    for step in (first..).step_by(usize::try_from(stride).expect("a small number")) {
        let subject = world.prepare(operation).await;
        let proxy = world.proxy(network);
        proxy.plan(step, fault.of_message());
        let received = Box::pin(world.perform(operation, &subject)).await;
        // The worker goes on after the caller has its response: those messages count, too.
        let mut differences = world.recover().await;
        let Some(Struck { message, until }) = proxy.struck() else { break };
        // A frozen message may arrive after the caller has repeated it.
        sleep_until(until).await;
        differences.extend(world.recover().await);
        let durable = world.audit(operation, &subject, &mut differences).await;
        let failed = !differences.is_empty();
        rows.push(Row { step, message, received, durable, differences });
        if failed {
            // The next step must begin with a world that is whole.
            world.abandon();
            world = World::new().await;
        }
    }
    // The plan that was not reached must not strike the end.
    world.proxy(network).plan(u64::MAX, MessageFault::CutBefore);
    world.end().await;
    rows
}

/// Strikes all chains, prints the table, and fails when there are differences.
async fn expect_no_difference(chains: Vec<Chain>) {
    let slots = Semaphore::new(CONCURRENCY);
    let struck = join_all(chains.iter().map(async |chain| {
        let _slot = slots.acquire().await.expect("never closed");
        Box::pin(strike(*chain)).await
    }));
    let struck = struck.await;
    let mut table =
        Table::new(&["operation", "network", "fault", "step", "message", "received", "durable", "audit"], 8);
    let (mut steps, mut failed) = (0, Vec::new());
    for (chain, rows) in chains.iter().zip(&struck) {
        let Chain { operation, network, fault, .. } = chain;
        for row in rows {
            steps += 1;
            let audit =
                if row.differences.is_empty() { "0 differences".to_owned() } else { row.differences.join("; ") };
            let [operation, network, fault] = [format!("{operation:?}"), format!("{network:?}"), format!("{fault:?}")];
            if !row.differences.is_empty() {
                failed.push(format!("{operation} {network} {fault} {}: {audit}", row.step));
            }
            let step = row.step.to_string();
            table.row([&operation, &network, &fault, &step, &row.message, &row.received, &row.durable, &audit]);
        }
    }
    output::line(&table.render("Steps"));
    output::line(&format!("{steps} steps, {} with differences", failed.len()));
    assert!(steps > 0, "nothing was struck");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn chains(operations: impl IntoIterator<Item = Operation>, faults: &[Fault], stride: u64) -> Vec<Chain> {
    let mut chains = Vec::new();
    for operation in operations {
        for network in Network::iter() {
            for &fault in faults {
                for first in 1..=stride {
                    chains.push(Chain { operation, network, fault, first, stride });
                }
            }
        }
    }
    chains
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cut_message_of_a_claim_or_an_order_leaves_a_difference() {
    // A cut after a message is much the same as one before the next: the exhaustive form makes both.
    expect_no_difference(chains([Operation::Claim, Operation::Order], &[Fault::CutBefore], 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_message_leaves_no_difference() {
    let mut sample = chains(Operation::iter(), &[Fault::Freeze], 1);
    // Two messages of each operation and network. The exhaustive form takes all of them.
    for chain in &mut sample {
        (chain.first, chain.stride) = (3, 1_000);
    }
    expect_no_difference(sample).await;
}

/// Takes minutes: only `make steps`, which sets `STEPS`, runs it in full.
#[tokio::test(flavor = "multi_thread")]
async fn no_message_of_any_operation_leaves_a_difference() {
    let all = std::env::var("STEPS").unwrap_or_default();
    let operations: Vec<Operation> = match &*all {
        "" => return,
        "all" => Operation::iter().collect(),
        named => Operation::iter().filter(|operation| named.contains(&format!("{operation:?}"))).collect(),
    };
    let mut all = chains(operations.iter().copied(), &[Fault::Freeze], 3);
    all.extend(chains(operations, &[Fault::CutBefore, Fault::CutAfter], 1));
    expect_no_difference(all).await;
}
