//! Secrets in files: `NAME_FILE` names the file that holds the setting `NAME`, as orchestrators mount secrets.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Command;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{sync::Mutex, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, Result},
    retry,
    supervisor::{Lifetime, Supervisor, Task},
};

/// A longer file holds no secret, in bytes.
const MAX_SECRET_BYTES: usize = 64 * 1024;
/// A replaced secret counts after so long at the latest. The documents name it.
const REREAD_INTERVAL: Duration = Duration::from_secs(2);

/// The settings that came from files.
#[derive(Clone, Debug, Default)]
pub struct SecretFiles(BTreeMap<String, SecretFile>);

#[derive(Clone, Debug)]
struct SecretFile {
    path: PathBuf,
    /// As it was read last.
    value: SecretString,
}

impl SecretFiles {
    /// Reads the file of every secret setting of `command` that has one.
    ///
    /// # Errors
    /// A setting by name, when its file cannot be read or is empty, or when it is given directly as well.
    pub fn read(
        command: &Command,
        arguments: &[OsString],
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let mut files = BTreeMap::new();
        for argument in command.get_arguments().filter(|argument| argument.is_hide_env_values_set()) {
            let Some(name) = argument.get_env().and_then(OsStr::to_str) else { continue };
            let file_setting = format!("{name}_FILE");
            let given = |variable: Option<OsString>| variable.filter(|value| !value.is_empty());
            let Some(path) = given(variable(&file_setting)).map(PathBuf::from) else { continue };
            let is_flag = argument.get_long().is_some_and(|long| arguments.iter().any(|given| is_flag(given, long)));
            if is_flag || given(variable(name)).is_some() {
                return Err(wrong(name, format!("expected either it or {file_setting}, got both")));
            }
            let value = read_secret(&path).map_err(|why| wrong(&file_setting, why))?;
            files.insert(name.to_owned(), SecretFile { path, value });
        }
        Ok(Self(files))
    }

    /// The arguments of the program, with what the files hold.
    pub(super) fn with_values(&self, command: &Command, arguments: Vec<OsString>) -> Vec<OsString> {
        let flags = command.get_arguments().filter_map(|argument| {
            let file = self.0.get(argument.get_env()?.to_str()?)?;
            Some(OsString::from(format!("--{}={}", argument.get_long()?, file.value.expose_secret())))
        });
        let mut arguments = arguments.into_iter();
        // Behind the name of the program, as flags of the program come before its command.
        let program = arguments.next().unwrap_or_default();
        std::iter::once(program).chain(flags).chain(arguments).collect()
    }

    /// Begins a list of secrets that may be replaced while the process runs.
    pub const fn watch(&self) -> SecretWatch<'_> {
        SecretWatch { files: self, watched: Vec::new() }
    }
}

fn is_flag(argument: &OsStr, long: &str) -> bool {
    let name = argument.to_str().and_then(|text| text.strip_prefix("--"));
    name.is_some_and(|name| name.split('=').next() == Some(long))
}

/// The name lives as long as the process, which ends with this error.
fn wrong(setting: &str, why: String) -> Error {
    let setting: Box<str> = setting.into();
    Error::Setting(Box::leak(setting), why)
}

/// The secret in a file, without the line feed at its end.
fn read_secret(path: &Path) -> Result<SecretString, String> {
    let mut text = String::new();
    // One byte more shows that a file is too long: `take` alone would cut a secret.
    let limit = MAX_SECRET_BYTES as u64 + 1;
    let read = fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text));
    let read = read.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    if read > MAX_SECRET_BYTES {
        return Err(format!("expected at most {MAX_SECRET_BYTES} bytes in {}", path.display()));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.trim().is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(text.into()) }
}

type Apply = Box<dyn Fn(SecretString) -> Result<()> + Send>;

/// Secrets that are read again while the process runs.
pub struct SecretWatch<'f> {
    files: &'f SecretFiles,
    watched: Vec<WatchedSecret>,
}

struct WatchedSecret {
    setting: &'static str,
    file: SecretFile,
    is_failing: bool,
    apply: Apply,
}

impl SecretWatch<'_> {
    /// Calls `apply` with the new value whenever the file of `setting` has changed, if it has one. A value that `apply`
    /// refuses does not count, and the last one does.
    pub fn on_change(&mut self, setting: &'static str, apply: impl Fn(SecretString) -> Result<()> + Send + 'static) {
        if let Some(file) = self.files.0.get(setting).cloned() {
            self.watched.push(WatchedSecret { setting, file, is_failing: false, apply: Box::new(apply) });
        }
    }

    /// Reads the files again until the process stops.
    pub fn spawn(self, supervisor: &Supervisor) {
        if self.watched.is_empty() {
            return;
        }
        let (watched, stopping) = (Arc::new(Mutex::new(self.watched)), supervisor.stopping.clone());
        supervisor.spawn(Task::new("secret_files", Lifetime::UntilStopping, move || {
            reread_all(Arc::clone(&watched), stopping.clone())
        }));
    }
}

async fn reread_all(watched: Arc<Mutex<Vec<WatchedSecret>>>, stopping: CancellationToken) -> Result<()> {
    let mut rounds = retry::every(REREAD_INTERVAL, &stopping);
    while rounds.next().await {
        for secret in watched.lock().await.iter_mut() {
            secret.reread().await;
        }
    }
    Ok(())
}

impl WatchedSecret {
    async fn reread(&mut self) {
        let path = self.file.path.clone();
        // A file on a network may take its time.
        let read = spawn_blocking(move || read_secret(&path)).await.unwrap_or_else(|error| Err(error.to_string()));
        match read.and_then(|value| self.replace(value)) {
            Ok(()) => self.is_failing = false,
            // Logged once, and not every two seconds.
            Err(why) if !std::mem::replace(&mut self.is_failing, true) => {
                tracing::warn!(setting = self.setting, why, "secret file not read; the last value counts");
            }
            Err(_) => {}
        }
    }

    fn replace(&mut self, value: SecretString) -> Result<(), String> {
        // A file that was written again with the same text changes nothing.
        if value.expose_secret() == self.file.value.expose_secret() {
            return Ok(());
        }
        (self.apply)(value.clone()).map_err(|error| error.to_string())?;
        self.file.value = value;
        tracing::info!(setting = self.setting, "secret replaced");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::env::temp_dir;

    use clap::CommandFactory as _;

    use super::*;
    use crate::{config::secret, identifiers::new_uuid};

    #[derive(clap::Parser)]
    struct Given {
        #[arg(long, env, value_parser = secret, hide_env_values = true)]
        admin_token: Option<SecretString>,
        #[arg(long, env)]
        name: Option<String>,
    }

    struct TestFile(PathBuf);

    impl TestFile {
        fn new(text: &str) -> Self {
            let path = temp_dir().join(format!("dibs-test-{}", new_uuid()));
            fs::write(&path, text).expect("written");
            Self(path)
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _gone = fs::remove_file(&self.0);
        }
    }

    fn read(file: &Path, arguments: &[&str], other: Option<(&str, &str)>) -> Result<SecretFiles> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let command = Given::command();
        SecretFiles::read(&command, &arguments, |name| match other {
            Some((other, value)) if other == name => Some(value.into()),
            _ => (name == "ADMIN_TOKEN_FILE").then(|| file.into()),
        })
    }

    #[test]
    fn a_secret_comes_from_its_file_without_the_line_feed() {
        for (text, expected) in [("a token", "a token"), ("a token\n", "a token"), (" a\r\n", " a"), ("a\n\n", "a\n")] {
            let file = TestFile::new(text);
            let files = read(&file.0, &["p", "run"], Some(("ADMIN_TOKEN", ""))).expect("read");
            let arguments = files.with_values(&Given::command(), vec!["p".into(), "run".into()]);
            assert_eq!(arguments, ["p".into(), OsString::from(format!("--admin-token={expected}")), "run".into()]);
            assert!(!format!("{files:?}").contains(expected));
        }
    }

    #[test]
    fn a_secret_that_is_given_twice_and_a_file_without_one_are_refused_with_a_sentence() {
        let file = TestFile::new("a token");
        let refused = |result: Result<SecretFiles>| result.expect_err("refused").to_string();
        for (arguments, other) in [
            (&["p", "--admin-token", "x"][..], None),
            (&["p", "--admin-token=x"][..], None),
            (&["p"][..], Some(("ADMIN_TOKEN", "x"))),
        ] {
            let sentence = refused(read(&file.0, arguments, other));
            assert_eq!(sentence, "ADMIN_TOKEN: expected either it or ADMIN_TOKEN_FILE, got both");
        }
        assert!(refused(read(Path::new("/no/such/file"), &["p"], None)).starts_with("ADMIN_TOKEN_FILE: /no/such/file"));
        for text in ["", "\n", "  \r\n"] {
            let file = TestFile::new(text);
            assert!(refused(read(&file.0, &["p"], None)).ends_with("is empty"));
        }
    }

    #[tokio::test]
    async fn a_changed_file_replaces_the_secret_and_a_bad_one_does_not() {
        let file = TestFile::new("one\n");
        let applied = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&applied);
        let mut secret = WatchedSecret {
            setting: "ADMIN_TOKEN",
            file: SecretFile { path: file.0.clone(), value: "one".into() },
            is_failing: false,
            apply: Box::new(move |value| {
                if value.expose_secret() == "bad" {
                    return Err(Error::Setting("ADMIN_TOKEN", "expected another one".into()));
                }
                seen.lock().expect("a lock").push(value.expose_secret().to_owned());
                Ok(())
            }),
        };
        for (text, is_failing) in [("one\n", false), ("", true), ("bad", true), ("two\n", false)] {
            fs::write(&file.0, text).expect("written");
            secret.reread().await;
            assert_eq!(secret.is_failing, is_failing, "{text}");
        }
        fs::remove_file(&file.0).expect("removed");
        secret.reread().await;
        assert!(secret.is_failing);
        assert_eq!(*applied.lock().expect("a lock"), ["two"]);
    }
}
