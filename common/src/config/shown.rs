//! The settings of a program, and how its log shows them.

use std::{env, ffi::OsString};

use clap::{ArgMatches, Command, Parser};
use clap_complete::Shell;

use super::{SecretFiles, describe_url};
use crate::error::Result;

const AFTER_HELP: &str = "Each setting that holds a secret can also come from a file: NAME_FILE in the environment names \
                          the file that holds NAME.";

/// The settings of a program.
pub struct Parsed<S> {
    pub settings: S,
    /// All of them on one line, for the log.
    pub shown: String,
    /// Those that came from files.
    pub files: SecretFiles,
}

/// Reads the settings, secrets also from files. Ends the process as [`Parser::parse`] does when they cannot be parsed.
///
/// # Errors
/// A file that holds no secret, and a secret that is given twice.
pub fn parse<S: Parser>() -> Result<Parsed<S>> {
    let mut command = with_settings_anywhere(S::command()).after_help(AFTER_HELP);
    let arguments: Vec<OsString> = env::args_os().collect();
    let files = SecretFiles::read(&command, &arguments, |name| env::var_os(name))?;
    let mut matches = command.clone().get_matches_from(files.with_values(&command, arguments));
    // From what was parsed and not from the fields, so that no setting can be forgotten.
    let shown = show(&command, &matches);
    match S::from_arg_matches_mut(&mut matches) {
        Ok(settings) => Ok(Parsed { settings, shown, files }),
        Err(error) => error.format(&mut command).exit(),
    }
}

/// Prints the script by which a shell completes the commands and settings of a program.
pub fn print_completions<S: Parser>(shell: Shell) {
    let mut command = with_settings_anywhere(S::command());
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut std::io::stdout());
}

/// The command line of a program, whose settings stand before its command or after it.
fn with_settings_anywhere(command: Command) -> Command {
    command.mut_args(|setting| {
        // Not every command needs a required setting. `Settings::check` refuses an empty one where it is needed.
        let setting = if setting.is_required_set() {
            setting.required(false).default_value("").hide_default_value(true)
        } else {
            setting
        };
        setting.global(true)
    })
}

/// `NAME=value` of every setting, defaults included, in the order of the help. Hidden values are masked.
fn show(command: &Command, matches: &ArgMatches) -> String {
    let setting = |argument: &clap::Arg| {
        let name = argument.get_env()?.to_string_lossy();
        let values = matches.get_raw(argument.get_id().as_str()).into_iter().flatten();
        let value = values.map(|value| value.to_string_lossy().into_owned()).collect::<Vec<_>>().join(",");
        let shown = match () {
            () if !argument.is_hide_env_values_set() || value.trim().is_empty() => value,
            () if name.ends_with("_URL") => describe_url(&value.into()),
            () => "***".into(),
        };
        Some(format!("{name}={shown}"))
    };
    command.get_arguments().filter_map(setting).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};
    use secrecy::SecretString;

    use super::*;
    use crate::config::{Settings, secret};

    #[derive(clap::Parser)]
    struct Given {
        #[command(flatten)]
        settings: Settings,
        #[arg(long, env, value_parser = secret, hide_env_values = true)]
        token: Option<SecretString>,
    }

    #[test]
    fn settings_stand_before_or_after_a_command() {
        #[derive(clap::Parser)]
        struct Program {
            #[arg(long)]
            needed: String,
            #[command(subcommand)]
            command: Action,
        }

        #[derive(clap::Subcommand)]
        enum Action {
            Run { count: Option<u32> },
        }

        for (arguments, expected) in [
            (&["p", "--needed=a", "run", "1"][..], "a"),
            (&["p", "run", "--needed", "a", "1"], "a"),
            (&["p", "run", "1", "--needed=a"], "a"),
            (&["p", "run", "1"], ""),
        ] {
            let mut matches = with_settings_anywhere(Program::command()).get_matches_from(arguments);
            let program = Program::from_arg_matches_mut(&mut matches).expect("parsed");
            assert_eq!(program.needed, expected, "{arguments:?}");
            assert!(matches!(program.command, Action::Run { count: Some(1) }), "{arguments:?}");
        }
    }

    #[test]
    fn every_setting_is_shown_and_no_secret() {
        let given = ["p", "--database-url", "mysql://u:pass@db/dibs", "--redis-url", "redis://r?password=word"];
        let matches = Given::command().get_matches_from(given.into_iter().chain(["--token", "redis://tok"]));
        let shown = show(&Given::command(), &matches);
        assert!(shown.starts_with("DATABASE_URL=mysql://***@db/dibs REDIS_URL=redis://r"), "{shown}");
        assert!(shown.contains(" CLAIM_PARTITIONS=16 ") && shown.contains(" PAYMENT_GATEWAY_URL= "), "{shown}");
        assert!(shown.ends_with(" TOKEN=***"), "{shown}");
        assert!(["pass", "word", "tok"].iter().all(|secret| !shown.contains(secret)), "{shown}");
        for argument in Given::command().get_arguments().filter_map(clap::Arg::get_env) {
            assert!(shown.contains(&format!("{}=", argument.to_string_lossy())), "{shown}");
        }
    }
}
