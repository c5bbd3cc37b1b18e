//! The command line.

use clap::{Parser, Subcommand};

use crate::{
    assignments::AssignmentsArguments, audit::AuditArguments, baseline::BaselineArguments, bench::BenchArguments,
    burst::BurstArguments, receiver::ReceiverArguments, shop::ShopArguments,
};

/// Load tests, fault runs, benchmarks and audits of Dibs
///
/// Exit status: 0 when no difference was found, 1 when the audit found differences, 2 when the command could not run.
#[derive(Debug, Parser)]
#[command(name = "dibs-loadtest", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Many users claim one campaign at the same time; then the audit
    ///
    /// Creates a campaign on the running stack. Goose users claim it, some of them two or three times. The command then
    /// waits until the worker has confirmed every claim, and compares MySQL, Redis and the recorded responses (I1 to
    /// I4, I11).
    ///
    /// With faults it starts a stack of its own (API, worker, Redis, and a second database on the given MySQL server),
    /// and injects them while claims are accepted and confirmed: SIGKILL to any of the processes, freezes, and cuts of
    /// networks. Users repeat a claim whose connection broke. Whatever was answered with 2xx must be there afterwards.
    ///
    /// With --claims it is a soak that also prints what it took: time, CPU a claim, memory.
    Burst(BurstArguments),
    /// Users browse, charge points, claim, order, pay, confirm and cancel; then the audit
    ///
    /// Creates products and campaigns on the running stack. One of the products takes half of all orders. Some requests
    /// are sent twice with the same Idempotency-Key, and every 202 is polled until it has an outcome. The command then
    /// waits until all commands are processed and all events are delivered, and runs the audit.
    ///
    /// With faults it starts a stack of its own (API, worker, Redis, and a second database on the given MySQL server),
    /// and injects them during the load: SIGKILL to any of the processes, freezes, and cuts of networks. Users repeat a
    /// request whose connection broke with the same Idempotency-Key. Whatever was answered with 2xx must be there
    /// afterwards.
    Shop(ShopArguments),
    /// An administrator gives a coupon to up to millions of users; then the audit
    ///
    /// Starts a stack of its own (API, worker, Redis, and a second database on the given MySQL server), uploads the list
    /// as one stream, kills the worker on demand while it issues the coupons, sends the same list again, and prints what
    /// it took: users a second, and the memory of API and worker.
    Assignments(AssignmentsArguments),
    /// Compares MySQL with Redis: invariants I1 to I12, and that all streams are drained
    ///
    /// Prints one line for each check: the invariant, what was compared, and the number of differences. Reads only.
    Audit(AuditArguments),
    /// Measures claims, confirmations, orders and rankings next to a baseline
    ///
    /// Starts API, worker and baseline server against the given MySQL and Redis, and measures them in alternation.
    /// Use servers that nothing else uses, on an idle machine: the bench writes and deletes its own data.
    Bench(BenchArguments),
    /// The HTTP baseline of the bench: parses the JSON of a claim, stores nothing, answers 202
    Baseline(BaselineArguments),
    /// A webhook receiver that verifies and records every delivery, and fails on demand
    ///
    /// Set the worker's `DATA_PLATFORM_URL` to its /data-platform, and `NOTIFICATION_URL` to its /notifications.
    Receiver(ReceiverArguments),
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    const DATABASE: &str = "--database-url=mysql://u:p@h/dibs";

    fn parse(arguments: &[&str]) -> Result<Command, clap::Error> {
        Cli::try_parse_from(["dibs-loadtest"].iter().chain(arguments)).map(|cli| cli.command)
    }

    fn error(arguments: &[&str]) -> ErrorKind {
        parse(arguments).expect_err("an error").kind()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The help text, whatever the width of the terminal and the environment are.
    fn help_of(subcommand: &str) -> String {
        let mut command = Cli::command().term_width(100);
        command.build();
        let help = command.find_subcommand_mut(subcommand).expect("a subcommand").render_long_help().to_string();
        let line = |line: &str| match line.split_once("[env: ") {
            Some((indent, variable)) => {
                format!("{indent}[env: {}]", variable.split(['=', ']']).next().unwrap_or_default())
            }
            None => line.trim_end().to_owned(),
        };
        help.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_help_of_every_subcommand_is_as_reviewed() {
        for subcommand in ["burst", "shop", "assignments", "audit", "bench", "baseline", "receiver"] {
            insta::assert_snapshot!(format!("help_{subcommand}"), help_of(subcommand));
        }
    }

    #[test]
    fn the_documented_options_exist() {
        let page = include_str!("../../docs/load-testing.md");
        let command = Cli::command();
        let mut known: Vec<&str> =
            command.get_subcommands().flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_long).collect();
        known.push("help");
        let named: Vec<&str> = page
            .split("--")
            .skip(1)
            .map(|rest| {
                rest.split(|letter: char| letter != '-' && !letter.is_ascii_lowercase()).next().unwrap_or_default()
            })
            .filter(|option| option.starts_with(|letter: char| letter.is_ascii_lowercase()))
            .collect();
        assert!(named.len() > 20, "{named:?}");
        let unknown: Vec<&&str> = named.iter().filter(|option| !known.contains(*option)).collect();
        assert!(unknown.is_empty(), "docs/load-testing.md names options that do not exist: {unknown:?}");
    }

    #[test]
    fn a_burst_has_the_defaults_of_the_documents() {
        let Command::Burst(burst) = parse(&["burst", DATABASE]).expect("valid") else { panic!("another command") };
        assert_eq!((burst.coupons, burst.users, burst.requests), (10_000, 100_000, 130_000));
        assert_eq!((burst.claims, burst.faults.total(), burst.load.seed), (None, 0, 1));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for arguments in [
            ["burst", "--coupons=0"],
            ["burst", "--users=10000001"],
            ["burst", "--redis-kills=1001"],
            ["shop", "--products=1001"],
            ["shop", "--freezes=1001"],
            ["burst", "--claims=9"],
            ["bench", "--rounds=0"],
            ["assignments", "--users=99"],
        ] {
            assert_eq!(error(&[arguments[0], DATABASE, arguments[1]]), ErrorKind::ValueValidation, "{arguments:?}");
        }
        let receiver = ["receiver", "--secret=whsec_x", "--delay-milliseconds=60001"];
        assert_eq!(error(&receiver), ErrorKind::ValueValidation);
    }

    #[test]
    fn arguments_that_need_each_other_are_given_together() {
        for arguments in [
            &["shop", DATABASE, "--receiver-address=127.0.0.1:1"][..],
            &["receiver", "--secret=whsec_x", "--outage-seconds=1"],
            &["receiver", "--secret=whsec_x", "--outage-after-seconds=1"],
        ] {
            assert_eq!(error(arguments), ErrorKind::MissingRequiredArgument, "{arguments:?}");
        }
    }

    #[test]
    fn an_audit_takes_the_id_of_a_campaign() {
        let Command::Audit(audit) = parse(&["audit", DATABASE, "--coupon=7"]).expect("valid") else {
            panic!("another command")
        };
        assert_eq!(audit.coupon.map(dibs_common::identifiers::CouponId::get), Some(7));
        assert_eq!(error(&["audit", DATABASE, "--coupon=0"]), ErrorKind::ValueValidation);
        assert_eq!(error(&["audit", DATABASE, "--coupon=x"]), ErrorKind::ValueValidation);
    }

    #[test]
    fn secrets_are_not_in_the_debug_output() {
        let command = parse(&["shop", DATABASE, "--webhook-secret=whsec_hidden", "--admin-token=hidden"]);
        let text = format!("{:?}", command.expect("valid"));
        assert!(!text.contains("hidden") && !text.contains("u:p@h"), "{text}");
    }
}
