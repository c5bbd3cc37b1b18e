//! The console: who may see and do what, what its pages show, and that they work in a browser.

mod browser;
mod chromium;
mod live;
mod pages;
mod screens;
mod security;
mod shop;

use std::{net::SocketAddr, time::Duration};

use reqwest::{Method, Response, StatusCode, header, redirect::Policy};

use tokio::time::Instant;

use crate::app::{ADMIN_TOKEN, TestApp};

const LIMIT: Duration = Duration::from_secs(20);

/// A browser without scripts: it keeps cookies, sends forms with their hidden fields, and follows no redirect by itself.
pub struct Visitor {
    client: reqwest::Client,
    address: SocketAddr,
    cookies: Vec<(String, String)>,
}

/// A page, as it arrived.
#[derive(Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: header::HeaderMap,
    pub html: String,
}

impl Page {
    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, html: response.text().await.expect("a body") }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Where a redirect leads.
    pub fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{self:?}");
        self.header("location")
    }

    /// The value of a hidden field.
    pub fn hidden(&self, name: &str) -> String {
        let begin = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.html.split_once(&begin).unwrap_or_else(|| panic!("{name}: {}", self.html));
        rest.split('"').next().expect("a value").to_owned()
    }

    pub fn expect(&self, text: &str) -> &Self {
        assert!(self.html.contains(text), "'{text}' is missing: {}", self.html);
        self
    }
}

impl Visitor {
    pub fn at(address: SocketAddr) -> Self {
        let client = reqwest::Client::builder().redirect(Policy::none()).build().expect("a client");
        Self { client, address, cookies: Vec::new() }
    }

    /// Logged in with `ADMIN_TOKEN`.
    pub async fn administrator(app: &TestApp) -> Self {
        Self::with(app, ADMIN_TOKEN).await
    }

    pub async fn with(app: &TestApp, token: &str) -> Self {
        let mut visitor = Self::at(app.address);
        let page = visitor.log_in(token, "").await;
        assert_eq!(page.location(), "/console");
        visitor
    }

    pub async fn log_in(&mut self, token: &str, next: &str) -> Page {
        let form = self.get("/console/login").await;
        let csrf = form.hidden("csrf");
        self.send("/console/login", &[("csrf", &csrf), ("token", token), ("next", next)]).await
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = self.client.request(method, format!("http://{}{path}", self.address));
        request.header("cookie", cookies.join("; "))
    }

    pub async fn get(&mut self, path: &str) -> Page {
        self.take(self.request(Method::GET, path)).await
    }

    /// A form as it is.
    pub fn form(&self, path: &str, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
        let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = self.request(Method::POST, path).header("content-type", "application/x-www-form-urlencoded");
        request.body(pairs.join("&"))
    }

    pub async fn send(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.take(self.form(path, fields)).await
    }

    /// Sends a form of the page at `from`, with the token and the operation of that.
    pub async fn submit(&mut self, from: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        let page = self.get(from).await;
        let (csrf, operation) = (page.hidden("csrf"), page.hidden("operation"));
        let mut all = vec![("csrf", csrf.as_str()), ("operation", operation.as_str())];
        all.extend(fields);
        self.send(path, &all).await
    }

    /// Waits until a page contains a text.
    pub async fn eventually_shows(&mut self, path: &str, text: &str) -> Page {
        let deadline = Instant::now() + LIMIT;
        loop {
            let page = self.get(path).await;
            if page.html.contains(text) {
                return page;
            }
            assert!(Instant::now() < deadline, "'{text}' is not shown: {}", page.html);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn take(&mut self, request: reqwest::RequestBuilder) -> Page {
        let page = Page::of(request.send().await.expect("an answer")).await;
        for cookie in page.headers.get_all("set-cookie") {
            let pair = cookie.to_str().expect("text").split(';').next().expect("a pair");
            let (name, value) = pair.split_once('=').expect("a pair");
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.into(), value.into()));
        }
        page
    }
}

fn encoded(text: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encode).collect()
}
