//! Runs the commands of the documents as a newcomer would: every block of `sh`, in order, against programs started for
//! it. A block of `output` after it says what it prints; `…` stands for anything. After `output eventually` a block is
//! repeated until it prints that.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use dibs_common::{
    health,
    testing::{TestEnvironment, eventually},
};
use secrecy::ExposeSecret as _;
use tokio::process::{Child, Command};

#[path = "../documents/sources.rs"]
mod sources;

const LIMIT: Duration = Duration::from_secs(20);

struct Block {
    place: String,
    commands: String,
    output: Option<String>,
    eventually: bool,
}

#[tokio::test]
async fn the_commands_of_the_documents_do_what_is_written_below_them() {
    let documents = sources::documents().into_iter().map(|(path, text)| (blocks(&path, &text), path));
    let documents: Vec<_> = documents.filter(|(blocks, _)| !blocks.is_empty()).collect();
    let paths: Vec<&str> = documents.iter().map(|(_, path)| path.as_str()).collect();
    assert!(
        paths.contains(&"README.md") && paths.contains(&"docs/api.md"),
        "blocks of sh are found, not only {paths:?}"
    );
    futures::future::join_all(documents.into_iter().map(|(blocks, _)| run(blocks))).await;
}

/// Each document has a database of its own, so it begins with the demo data of `dibs-worker seed`.
async fn run(blocks: Vec<Block>) {
    let stack = Stack::start().await;
    for block in &blocks {
        let Some(expected) = &block.output else {
            stack.shell(block).await;
            continue;
        };
        if block.eventually {
            eventually(&block.place, LIMIT, async || matches(&stack.shell(block).await, expected)).await;
        } else {
            let printed = stack.shell(block).await;
            assert!(matches(&printed, expected), "{} printed:\n{printed}\nexpected:\n{expected}", block.place);
        }
    }
    stack.end().await;
}

/// API and worker as processes, on free ports, with a database and a key prefix of their own.
struct Stack {
    environment: TestEnvironment,
    folder: PathBuf,
    variables: Vec<(&'static str, String)>,
    processes: Vec<Child>,
}

impl Stack {
    async fn start() -> Self {
        let environment = TestEnvironment::new().await;
        let folder = std::env::temp_dir().join(format!("dibs-documents-{}", dibs_common::identifiers::new_uuid()));
        fs::create_dir(&folder).expect("a folder");
        let [api, worker] = [free_address(), free_address()];
        let programs = Path::new(env!("CARGO_BIN_EXE_dibs-api")).parent().expect("a folder of programs");
        assert!(programs.join("dibs-worker").exists(), "cargo build --package dibs-worker comes first");
        let path = std::env::var("PATH").unwrap_or_default();
        let settings = &environment.settings;
        let variables = vec![
            ("PATH", format!("{}:{path}", programs.display())),
            ("DATABASE_URL", settings.database_url.expose_secret().to_owned()),
            ("REDIS_URL", settings.redis_url.expose_secret().to_owned()),
            ("REDIS_KEY_PREFIX", settings.redis_key_prefix.clone()),
            ("CLAIM_PARTITIONS", settings.claim_partitions.to_string()),
            ("SHUTDOWN_DELAY_SECONDS", "0".into()),
            ("API_ADDRESS", api.to_string()),
            ("WORKER_ADDRESS", worker.to_string()),
            ("API_URL", format!("http://{api}")),
            ("ADMIN_TOKEN", "the token of the documents".into()),
        ];
        let mut stack = Self { environment, folder, variables, processes: Vec::new() };
        let seeded = stack.program("dibs-worker").arg("seed").status().await.expect("dibs-worker");
        assert!(seeded.success(), "dibs-worker seed");
        for (program, arguments) in [("dibs-worker", &["run"][..]), ("dibs-api", &[])] {
            let process = stack.program(program).args(arguments).spawn().expect(program);
            stack.processes.push(process);
        }
        eventually("API and worker are ready", LIMIT, async || health::probe(api).await && health::probe(worker).await)
            .await;
        stack
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).expect("a log");
        command.envs(self.variables.iter().cloned()).current_dir(&self.folder);
        // A failed test leaves no process behind.
        command.stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        command
    }

    /// Runs a block and returns what it prints. Its variables are there for the next block.
    async fn shell(&self, block: &Block) -> String {
        let script = format!(
            "[[ ! -e variables ]] || source variables\nset -a\n{}\nset +a\nexport -p >variables",
            block.commands
        );
        let mut shell = Command::new("bash");
        shell.envs(self.variables.iter().cloned()).current_dir(&self.folder);
        let done = shell.args(["-euo", "pipefail", "-c", &script]).output().await.expect("bash");
        let (printed, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{} failed:\n{printed}\n{errors}", block.place);
        printed.into_owned()
    }

    async fn end(mut self) {
        for process in &mut self.processes {
            let id = process.id().expect("it runs").to_string();
            let stopped = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill");
            let ended = process.wait().await.expect("it ended");
            assert!(stopped.success() && ended.success(), "SIGTERM ends a program with 0");
        }
        fs::remove_dir_all(&self.folder).expect("removed");
        self.environment.end().await;
    }
}

/// Free now: another process could take it, which would fail the test with a sentence of the program.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn blocks(path: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut fence: Option<(String, usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut fence) {
            (Some(info), None) => fence = Some((info.to_owned(), number + 1, String::new())),
            (Some(_), Some(_)) => {
                let (info, number, content) = fence.take().expect("a fence");
                match (info.as_str(), blocks.last_mut()) {
                    ("sh", _) => blocks.push(Block {
                        place: format!("{path}:{number}"),
                        commands: content,
                        output: None,
                        eventually: false,
                    }),
                    ("output" | "output eventually", Some(block)) => {
                        block.output = Some(content);
                        block.eventually = info.ends_with("eventually");
                    }
                    _ => {}
                }
            }
            (None, Some((_, _, content))) => {
                content.push_str(line);
                content.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Whether `printed` is as expected, blanks apart.
fn matches(printed: &str, expected: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<String>();
    let (printed, expected) = (squeeze(printed), squeeze(expected));
    let pieces: Vec<&str> = expected.split('…').collect();
    let (first, last) = (pieces[0], pieces[pieces.len() - 1]);
    if pieces.len() == 1 {
        return printed == expected;
    }
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    for piece in &pieces[1..pieces.len() - 1] {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn an_ellipsis_stands_for_anything() {
    assert!(matches("{\"id\": 7,\n \"status\": \"UP\"}", "{…\"status\":\"UP\"}"));
    assert!(matches("abc", "abc") && matches("abc", "a…") && matches("abc", "…c") && matches("abc", "a…b…c"));
    assert!(!matches("abc", "b…") && !matches("abc", "…b") && !matches("abc", "a…c…b…c") && !matches("abcd", "abc"));
}
