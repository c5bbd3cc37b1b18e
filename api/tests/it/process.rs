//! The program itself: how it stops, and what it does with connections that send nothing.

use std::{
    net::{SocketAddr, TcpListener},
    process::Stdio,
    time::Duration,
};

use dibs_common::{
    health,
    testing::{TestEnvironment, eventually},
};
use secrecy::ExposeSecret as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, timeout},
};

const LIMIT: Duration = Duration::from_secs(20);

pub struct Api {
    process: Child,
    pub address: SocketAddr,
}

impl Api {
    /// Starts the program in a shell, after `prelude`.
    pub async fn start(environment: &TestEnvironment, prelude: &str, variables: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let settings = &environment.settings;
        let process = Command::new("bash")
            .args(["-c", &format!("{prelude} exec \"$0\""), env!("CARGO_BIN_EXE_dibs-api")])
            .env("DATABASE_URL", settings.database_url.expose_secret())
            .env("REDIS_URL", settings.redis_url.expose_secret())
            .env("REDIS_KEY_PREFIX", &settings.redis_key_prefix)
            .env("API_ADDRESS", address.to_string())
            .envs(variables.iter().copied())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the program");
        let api = Self { process, address };
        eventually("the API is ready", LIMIT, async || health::probe(address).await).await;
        api
    }

    async fn terminate(&self) {
        let id = self.process.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.expect("kill").success());
    }

    /// Awaits the end; whether it was a good one.
    async fn ended(&mut self) -> bool {
        timeout(LIMIT, self.process.wait()).await.expect("the API has ended").expect("a child").success()
    }
}

#[tokio::test]
async fn a_rolling_restart_loses_no_call() {
    let environment = TestEnvironment::new().await;
    let mut api = Api::start(&environment, "", &[("SHUTDOWN_DELAY_SECONDS", "2")]).await;
    let (client, url) = (reqwest::Client::new(), format!("http://{}/products", api.address));
    api.terminate().await;
    let terminated = Instant::now();
    eventually("readiness is DOWN", Duration::from_secs(1), async || !health::probe(api.address).await).await;
    // A load balancer looks about each second, so calls still come: on old connections and on new ones.
    let mut calls = 0;
    while terminated.elapsed() < Duration::from_millis(1_500) {
        let kept = client.get(&url).send().await.expect("answered on a kept connection");
        let new = reqwest::get(&url).await.expect("answered on a new connection");
        assert_eq!((kept.status().as_u16(), new.status().as_u16()), (200, 200));
        assert_eq!(kept.headers().get("connection").map(reqwest::header::HeaderValue::as_bytes), Some(&b"close"[..]));
        calls += 2;
    }
    assert!(calls > 10, "{calls} calls");
    assert!(api.ended().await, "the process ends well");
    assert!(terminated.elapsed() >= Duration::from_secs(2), "the delay was waited for");
    environment.end().await;
}

#[tokio::test]
async fn connections_that_send_half_a_head_keep_no_caller_out_and_are_closed() {
    const SLOW: usize = 200;
    let environment = TestEnvironment::new().await;
    let api = Api::start(&environment, "ulimit -n 256;", &[("SHUTDOWN_DELAY_SECONDS", "0")]).await;
    let mut slow = Vec::with_capacity(SLOW);
    for _ in 0..SLOW {
        let mut stream = TcpStream::connect(api.address).await.expect("accepted by the kernel");
        stream.write_all(b"GET /health/ready HTTP/1.1\r\nhost: s").await.expect("half a head");
        slow.push(stream);
    }
    let opened = Instant::now();
    assert!(health::probe(api.address).await, "a health check is answered meanwhile");
    for mut stream in slow {
        let closed = timeout(LIMIT, stream.read(&mut [0; 256])).await.expect("closed in time");
        assert_eq!(closed.unwrap_or(0), 0, "closed without an answer");
    }
    assert!(opened.elapsed() < Duration::from_secs(15), "{:?}", opened.elapsed());
    assert!(health::probe(api.address).await);
    environment.end().await;
}

/// Runs the program without servers; whether it ended well, and what it printed.
async fn run(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dibs-api"));
    // A folder without a `.env`.
    command.args(arguments).current_dir("/").env_remove("DATABASE_URL").env_remove("REDIS_URL");
    let ended = timeout(LIMIT, command.output()).await.expect("in time").expect("the program");
    (ended.status.success(), String::from_utf8([ended.stdout, ended.stderr].concat()).expect("text"))
}

#[tokio::test]
async fn commands_that_need_no_server_take_no_urls() {
    let (printed, document) = run(&["openapi"]).await;
    assert!(printed && document == include_str!("../../openapi.json"), "the document, as it is committed");
    let (printed, script) = run(&["completions", "bash"]).await;
    assert!(printed && script.contains("--database-url") && script.contains("dibs-api"), "{script}");
    for arguments in [["--api-address=127.0.0.1:1", "health"], ["health", "--api-address=127.0.0.1:1"]] {
        assert_eq!(run(&arguments).await, (false, "error: API_ADDRESS: nothing is ready at 127.0.0.1:1\n".into()));
    }
    let (served, refusal) = run(&["--redis-url=redis://127.0.0.1:1"]).await;
    assert!(!served && refusal.starts_with("error: DATABASE_URL: it is not set; expected mysql://"), "{refusal}");
}
