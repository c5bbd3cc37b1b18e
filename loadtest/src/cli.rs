//! The command line.

use clap::{Parser, Subcommand};

use crate::{
    audit::AuditArguments, bare::BareArguments, bench::BenchArguments, receiver::ReceiverArguments,
    rush::RushArguments, shop::ShopArguments,
};

/// Loads Dibs, breaks it, measures it, and looks afterwards whether everything is right.
///
/// Exit status: 0 when everything is right, 1 when something is wrong, 2 when that could not be found out.
#[derive(Debug, Parser)]
#[command(name = "dibs-loadtest", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Many users rush one campaign; then the audit
    ///
    /// Makes a campaign on the running stack, lets users claim it through goose, some of them twice or three times,
    /// waits until every claim is confirmed, and audits MySQL, Redis and the answers against I1 to I4.
    ///
    /// With --worker-kills or --redis-kills it brings a stack of its own (API, worker, Redis, and a database beside the
    /// one given) and kills parts of it with SIGKILL while claims are accepted and confirmed.
    Rush(RushArguments),
    /// Users browse, charge, claim, order, pay, confirm and cancel; then the audit
    ///
    /// Makes products and campaigns on the running stack and lets users shop through goose: one of the products takes
    /// half of all orders, some requests are made twice with their idempotency key, and every 202 is followed up until
    /// it has an outcome. Then it waits until all commands are carried out, and audits MySQL, Redis and the answers.
    ///
    /// With --worker-kill-seconds it brings a stack of its own (API, worker, Redis, and a database beside the one
    /// given) and kills the worker with SIGKILL again and again.
    Shop(ShopArguments),
    /// MySQL against Redis: I1 to I8, I10 and I12, and that all is at rest
    ///
    /// Prints each invariant with what was compared and the differences found. Reads only.
    Audit(AuditArguments),
    /// Claims and confirmations beside the barest thing that could do the same
    ///
    /// Starts API, worker and a bare server itself, against the database and the Redis given, and measures them in
    /// alternation. Nothing else should run on those servers, nor much on the machine.
    Bench(BenchArguments),
    /// The barest server that could answer a claim: parses the JSON, touches nothing
    Bare(BareArguments),
    /// A receiver of webhooks, which checks and records what comes, and fails if asked
    ///
    /// Point the two URLs of the worker at it, as /data-platform and /notifications.
    Receiver(ReceiverArguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
