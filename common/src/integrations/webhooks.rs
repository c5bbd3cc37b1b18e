//! Webhooks: messages to receivers by HTTP, signed as the Standard Webhooks specification defines it.
//!
//! - A receiver gets `POST {url}` with the message as JSON. A user and a password in the URL are sent as basic
//!   authentication.
//! - `webhook-id` is the message's id, the same in every attempt: a receiver deduplicates by it.
//! - `webhook-timestamp` is the time of the attempt, in seconds since 1970.
//! - `webhook-signature` is `v1,` and the HMAC-SHA256 of `{id}.{timestamp}.{body}` in base64; one for each secret, with
//!   a space between them, so that a secret can be rotated while messages are in flight.
//! - 2xx: accepted. 400, 405, 410, 413, 415, 422 and 501: refused for good, it is not sent again.
//! - Anything else (another status, a redirect, a broken connection, no response within 5 s): failed, it is sent again.
//!   `Retry-After` is respected, up to an hour.
//! - No response at all, 429, 502, 503 and 504 mean that the receiver is unreachable; any other status that it is not.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta};
use reqwest::{Client, Response, Url, header, redirect};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    clock::{self, Timestamp},
    config::describe_url,
    domain::{dead_letter::beginning, trace_context::TraceContext},
    error::{Error, Result},
    integrations::http::{describe, http_url},
};

pub const ID_HEADER: &str = "webhook-id";
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
pub const SIGNATURE_HEADER: &str = "webhook-signature";
/// How long a response may take, connection included.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// A longer `Retry-After` counts as this.
pub const MAX_RETRY_AFTER: TimeDelta = TimeDelta::hours(1);

const SECRET_SETTING: &str = "WEBHOOK_SECRET";
/// As the specification requires.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Each secret adds a signature to the header.
const MAX_SECRETS: usize = 8;
/// How much of a response's body is read, and how much of that is kept, in bytes.
// Read to the end, a usual error page leaves the connection usable; for a longer one a new connection is cheaper.
const MAX_BODY_READ: usize = 16 * 1024;
const MAX_BODY_KEPT: usize = 300;
const MAX_IDLE_CONNECTIONS: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The keys that sign messages, the same for all receivers. Copies share them, so that they are replaced everywhere.
#[derive(Clone)]
pub struct WebhookSecrets(Arc<ArcSwap<Vec<hmac::Key>>>);

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} secrets", self.0.load().len())
    }
}

impl WebhookSecrets {
    /// Parses `whsec_` and the base64 of 24 to 64 bytes; several with a space between them.
    pub fn parse(secrets: &SecretString) -> Result<Self> {
        keys(secrets).map(|keys| Self(Arc::new(ArcSwap::from_pointee(keys))))
    }

    /// Signs with other secrets from now on, here and in all copies.
    ///
    /// # Errors
    /// They cannot be parsed. Then nothing changes.
    pub fn replace(&self, secrets: &SecretString) -> Result<()> {
        self.0.store(Arc::new(keys(secrets)?));
        Ok(())
    }

    /// The signature header of a message: one signature for each secret.
    pub fn signatures(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let head = format!("{id}.{timestamp}.");
        let keys = self.0.load();
        let signatures = keys.iter().map(|key| {
            let mut context = hmac::Context::with_key(key);
            context.update(head.as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }

    /// Whether one of the signatures is that of this message with one of these secrets.
    pub fn verify(&self, id: &str, timestamp: i64, body: &[u8], signatures: &str) -> bool {
        // `hmac::verify` takes the same time wherever two signatures differ, so a forger learns nothing from it.
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        let given = signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
        let given: Vec<Vec<u8>> = given.filter_map(|signature| STANDARD.decode(signature).ok()).collect();
        self.0.load().iter().any(|key| given.iter().any(|tag| hmac::verify(key, &signed, tag).is_ok()))
    }
}

fn keys(secrets: &SecretString) -> Result<Vec<hmac::Key>> {
    let keys: Result<Vec<hmac::Key>, String> = secrets.expose_secret().split_whitespace().map(key).collect();
    match keys {
        Ok(keys) if (1..=MAX_SECRETS).contains(&keys.len()) => Ok(keys),
        Ok(keys) => {
            Err(Error::Setting(SECRET_SETTING, format!("expected 1 to {MAX_SECRETS} secrets, got {}", keys.len())))
        }
        Err(why) => Err(Error::Setting(SECRET_SETTING, why)),
    }
}

/// The error is printed, so it does not repeat the secret.
fn key(secret: &str) -> Result<hmac::Key, String> {
    const EXPECTED: &str = "expected whsec_ and the base64 of 24 to 64 bytes, several with a space between them";
    let bytes = secret.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
    match bytes {
        Some(bytes) if SECRET_BYTES.contains(&bytes.len()) => Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)),
        Some(bytes) => Err(format!("{EXPECTED}; one has {}", bytes.len())),
        None => Err(EXPECTED.into()),
    }
}

/// The result of one attempt to deliver a message.
#[derive(Clone, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Delivery {
    Accepted,
    /// It will never be accepted: the status and the beginning of the body.
    Refused(String),
    /// A later attempt may succeed.
    Failed(DeliveryFailure),
}

impl Delivery {
    /// Why the receiver has not accepted it.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Accepted => None,
            Self::Refused(reason) | Self::Failed(DeliveryFailure { reason, .. }) => Some(reason),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryFailure {
    /// The status and the beginning of the body, or why there was no response.
    pub reason: String,
    /// At most [`MAX_RETRY_AFTER`].
    pub retry_after: Option<TimeDelta>,
    /// Whether the receiver responded itself: the failure may be that of this message alone.
    pub is_reachable: bool,
}

#[derive(Clone)]
pub struct WebhookEndpoint {
    client: Client,
    url: Url,
    secrets: WebhookSecrets,
}

impl fmt::Debug for WebhookEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("WebhookEndpoint").field(&self.described()).finish()
    }
}

impl WebhookEndpoint {
    /// The receiver at the URL in `setting`. It is not connected to yet.
    pub fn at(setting: &'static str, url: &SecretString, secrets: WebhookSecrets) -> Result<Self> {
        let url = http_url(url.expose_secret()).map_err(|why| Error::Setting(setting, why))?;
        // A redirect would be followed with a GET, without the message; and only the setting decides who receives
        // events.
        let client = Client::builder()
            .timeout(WEBHOOK_TIMEOUT)
            .redirect(redirect::Policy::none())
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .user_agent(concat!("dibs/", env!("CARGO_PKG_VERSION")))
            .build();
        let client =
            client.map_err(|error| Error::Setting(setting, format!("cannot be spoken to: {}", describe(&error))))?;
        Ok(Self { client, url, secrets })
    }

    /// The secrets that it signs with.
    pub const fn secrets(&self) -> &WebhookSecrets {
        &self.secrets
    }

    /// Asks for the headers of the URL, without a message: the status of the answer, or why there is none.
    pub async fn probe(&self) -> Result<u16, String> {
        match self.client.head(self.url.clone()).send().await {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) => Err(describe(&error)),
        }
    }

    /// Its URL without what may be secret.
    pub fn described(&self) -> String {
        describe_url(&self.url.as_str().into())
    }

    /// Sends a message once, as a part of this trace when there is one.
    pub async fn send(&self, id: &str, body: Bytes, trace: Option<TraceContext>) -> Delivery {
        let now = clock::now();
        // Each attempt has a signature of its own: receivers refuse an old timestamp as a replay.
        let signatures = self.secrets.signatures(id, now.timestamp(), &body);
        let mut request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(ID_HEADER, id)
            .header(TIMESTAMP_HEADER, now.timestamp())
            .header(SIGNATURE_HEADER, signatures)
            .body(body);
        if let Some(trace) = trace {
            request = request.header("traceparent", trace.to_string());
        }
        match request.send().await {
            Ok(response) => delivery(response, now).await,
            Err(error) => {
                Delivery::Failed(DeliveryFailure { reason: describe(&error), retry_after: None, is_reachable: false })
            }
        }
    }
}

async fn delivery(response: Response, now: Timestamp) -> Delivery {
    let status = response.status();
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|value| parse_retry_after(value, now));
    // Also of a success: only a connection whose response was read can be used again.
    let body = beginning_of_body(response).await;
    if status.is_success() {
        return Delivery::Accepted;
    }
    let reason =
        if body.is_empty() { format!("it answered {status}") } else { format!("it answered {status}: {body}") };
    match status.as_u16() {
        400 | 405 | 410 | 413 | 415 | 422 | 501 => Delivery::Refused(reason),
        status => {
            // A proxy whose receiver is gone, or a receiver that is too busy for any message.
            let is_reachable = !matches!(status, 429 | 502..=504);
            Delivery::Failed(DeliveryFailure { reason, retry_after, is_reachable })
        }
    }
}

async fn beginning_of_body(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY_READ {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body);
    // It goes into a table, the log and terminals, where control characters have effects.
    let clean: String = beginning(&text, MAX_BODY_KEPT).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.trim().to_owned()
}

/// `Retry-After` is a number of seconds or a date (RFC 9110, section 10.2.3).
fn parse_retry_after(value: &str, now: Timestamp) -> Option<TimeDelta> {
    let after = match value.trim().parse::<u32>() {
        Ok(seconds) => TimeDelta::seconds(i64::from(seconds)),
        Err(_) => DateTime::parse_from_rfc2822(value.trim()).ok()?.to_utc() - now,
    };
    Some(after.clamp(TimeDelta::zero(), MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn secrets(text: &str) -> Result<WebhookSecrets, String> {
        WebhookSecrets::parse(&text.into()).map_err(|error| error.to_string())
    }

    #[test]
    fn replaced_secrets_sign_everywhere_and_wrong_ones_replace_nothing() {
        let (first, second) = (secrets(SECRET).expect("a secret"), "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        let copy = first.clone();
        let before = first.signatures("id", 1, b"body");
        first.replace(&"whsec_short".into()).expect_err("refused");
        assert_eq!(copy.signatures("id", 1, b"body"), before);
        first.replace(&format!("{SECRET} {second}").into()).expect("replaced");
        let both = copy.signatures("id", 1, b"body");
        assert!(both.starts_with(&before) && both.len() > before.len(), "{both}");
        assert!(copy.verify("id", 1, b"body", &before));
    }

    /// The example that the specification's reference libraries are tested with.
    #[test]
    fn a_signature_is_that_of_the_published_example() {
        let secrets = secrets(SECRET).expect("a secret");
        let (id, timestamp, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(secrets.signatures(id, timestamp, body), signature);
        assert!(secrets.verify(id, timestamp, body, signature));
        assert!(secrets.verify(id, timestamp, body, &format!("v1,AAAA v2,AAAA {signature}")));
        assert!(!secrets.verify(id, timestamp + 1, body, signature));
        assert!(!secrets.verify("msg_other", timestamp, body, signature));
        assert!(!secrets.verify(id, timestamp, b"{}", signature));
        assert!(!secrets.verify(id, timestamp, body, ""));
    }

    #[test]
    fn secrets_of_an_endpoint_are_not_shown() {
        let url = "https://user:secret@hooks.example/in?token=secret".into();
        let endpoint =
            WebhookEndpoint::at("NOTIFICATION_URL", &url, secrets(SECRET).expect("a secret")).expect("valid");
        assert_eq!(format!("{endpoint:?}"), "WebhookEndpoint(\"https://***@hooks.example/in?***\")");
    }

    #[test]
    fn while_a_secret_is_rotated_both_sign() {
        let other = format!("whsec_{}", STANDARD.encode([7; 24]));
        let both = secrets(&format!("{SECRET} {other}")).expect("two secrets");
        let signatures = both.signatures("event-1-0", 1, b"{}");
        assert_eq!(signatures.split(' ').count(), 2);
        for one in [SECRET, &other] {
            assert!(secrets(one).expect("a secret").verify("event-1-0", 1, b"{}", &signatures));
        }
        assert_eq!(format!("{both:?}"), "2 secrets");
    }

    #[test]
    fn wrong_secrets_are_refused_with_a_sentence_that_does_not_repeat_them() {
        let short = format!("whsec_{}", STANDARD.encode([7; 23]));
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        for wrong in ["", "  ", "secret", "whsec_", "whsec_!!!", &SECRET[6..], &short, &long, &format!("{SECRET} x")] {
            let why = secrets(wrong).expect_err(wrong);
            assert!(why.starts_with("WEBHOOK_SECRET: expected "), "{why}");
            assert!(wrong.len() < 8 || !why.contains(wrong), "{why}");
        }
        assert!(secrets(&format!("whsec_{}", STANDARD.encode([7; 64]))).is_ok());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = "2015-10-21T07:27:00Z".parse().expect("a moment");
        let seconds = |value| parse_retry_after(value, now).map(|after| after.num_seconds());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(60));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:00:00 GMT"), Some(0));
        assert_eq!(seconds("4000000000"), Some(3_600));
        assert_eq!(seconds("soon"), None);
    }

    #[test]
    fn a_wrong_url_is_refused_with_the_name_of_its_setting() {
        let at = |url: &str| {
            let endpoint = WebhookEndpoint::at("NOTIFICATION_URL", &url.into(), secrets(SECRET).expect("a secret"));
            endpoint.map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(at("https://user:secret@hooks.example/in?shop=1"), Ok(()));
        for wrong in ["hooks.example", "ftp://hooks.example", "http://hooks.example/#x"] {
            let why = at(wrong).expect_err(wrong);
            assert!(why.starts_with("NOTIFICATION_URL: expected http:// or https://"), "{why}");
        }
    }
}
