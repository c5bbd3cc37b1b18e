//! Headless Chromium, driven over the `WebDriver` protocol of chromedriver. The protocol is a handful of JSON calls.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dibs_common::identifiers::new_uuid;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::Instant,
};

const LIMIT: Duration = Duration::from_secs(20);
/// What `WebDriver` calls the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const FLAGS: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// The browser, until it is dropped.
pub struct Chromium {
    _driver: Child,
    session: String,
    client: reqwest::Client,
    profile: PathBuf,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.profile);
    }
}

fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|file| file.is_file())
}

impl Chromium {
    /// None, with a sentence, where Chromium or chromedriver is not installed.
    #[expect(clippy::print_stderr, reason = "the sentence is for the person who runs the tests")]
    pub async fn start() -> Option<Self> {
        let programs = program(&["chromedriver"]).zip(program(&["chromium", "chromium-browser", "google-chrome"]));
        let Some((driver, browser)) = programs else {
            eprintln!("not tested in a browser: chromedriver and chromium are not on PATH");
            return None;
        };
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver");
        let mut lines = BufReader::new(driver.stdout.take().expect("its output")).lines();
        let port = loop {
            let line = lines.next_line().await.expect("text").expect("a port");
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let profile = std::env::temp_dir().join(format!("dibs-test-chromium-{}", new_uuid()));
        let mut arguments: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        let options = json!({ "args": arguments, "binary": browser });
        let logged = json!({ "browser": "ALL" });
        let match_all = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": logged });
        let wanted = json!({ "capabilities": { "alwaysMatch": match_all } });
        let client = reqwest::Client::builder().timeout(Duration::from_mins(1)).build().expect("a client");
        let url = format!("http://127.0.0.1:{port}/session");
        let answer = client.post(&url).json(&wanted).send().await.expect("chromedriver answers");
        let answer: Value = answer.json().await.expect("JSON");
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("a session: {answer}"));
        Some(Self { session: format!("{url}/{id}"), _driver: driver, client, profile })
    }

    async fn post(&self, command: &str, body: Value) -> Result<Value, String> {
        let request = self.client.post(format!("{}/{command}", self.session)).json(&body);
        let answer: Value = request.send().await.expect("chromedriver answers").json().await.expect("JSON");
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"])),
            None => Ok(answer["value"].clone()),
        }
    }

    async fn must(&self, command: &str, body: Value) -> Value {
        self.post(command, body).await.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Ends the browser.
    pub async fn quit(self) {
        let _ended = self.client.delete(&self.session).send().await;
    }

    pub async fn open(&self, url: &str) {
        self.must("url", json!({ "url": url })).await;
    }

    /// Runs the body of a function in the page; a promise is awaited.
    pub async fn run(&self, script: &str) -> Value {
        self.must("execute/sync", json!({ "script": script, "args": [] })).await
    }

    async fn find(&self, selector: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.post("element", json!({ "using": "css selector", "value": selector })).await {
                Ok(found) => return found[ELEMENT].as_str().expect("an id").to_owned(),
                Err(error) => assert!(Instant::now() < deadline, "{selector}: {error}; {}", self.text("body").await),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Clicks as a user does: on what is visible.
    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.must(&format!("element/{element}/click"), json!({})).await;
    }

    pub async fn write(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        self.must(&format!("element/{element}/clear"), json!({})).await;
        self.must(&format!("element/{element}/value"), json!({ "text": text })).await;
    }

    /// Presses keys one after the other, wherever the focus is.
    pub async fn press(&self, keys: &[&str]) {
        let actions = keys
            .iter()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]);
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions.collect::<Vec<_>>() });
        self.must("actions", json!({ "actions": [keyboard] })).await;
    }

    /// What a user reads of an element; empty when there is none.
    pub async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.innerText ?? ''");
        self.run(&script).await.as_str().expect("text").to_owned()
    }

    pub async fn eventually(&self, selector: &str, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let text = self.text(selector).await;
            if holds(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "{selector} does not show {what}: {text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn eventually_shows(&self, selector: &str, text: &str) -> String {
        self.eventually(selector, text, |shown| shown.contains(text)).await
    }

    /// A command of the protocol behind the developer tools.
    pub async fn devtools(&self, command: &str, params: Value) -> Value {
        self.must("goog/cdp/execute", json!({ "cmd": command, "params": params })).await
    }

    /// What the browser complained about since the last call: failed scripts, and what the policy forbids. A page that
    /// answers an error on purpose is none.
    pub async fn faults(&self) -> Vec<String> {
        let entries = self.must("se/log", json!({ "type": "browser" })).await;
        let entries = entries.as_array().cloned().unwrap_or_default().into_iter();
        let faults = entries.filter(|entry| entry["level"] == "SEVERE").map(|entry| entry["message"].to_string());
        faults.filter(|message| !message.contains("Failed to load resource")).collect()
    }

    /// How wide the page is, and in which colours and language.
    pub async fn look(&self, width: u32, is_dark: bool, language: &str) {
        let (height, mobile) = (if width < 600 { 844 } else { 1_000 }, width < 600);
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", media).await;
        let agent = json!({ "userAgent": "dibs-test", "acceptLanguage": language });
        self.devtools("Emulation.setUserAgentOverride", agent).await;
    }

    /// Writes a picture of the whole page.
    pub async fn picture(&self, file: &Path) {
        let shot =
            self.devtools("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true })).await;
        let bytes = STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(file, bytes).expect("written");
    }
}
