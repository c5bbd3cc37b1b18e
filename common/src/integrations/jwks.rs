//! Fetches a JSON Web Key Set (RFC 7517): the public keys of the issuer of users' tokens.

use std::time::Duration;

use reqwest::{Client, Url, redirect};

use super::http::{describe, http_url};

/// How long a response may take, connection included.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A longer response is no key set, in bytes.
pub const MAX_KEY_SET_BYTES: usize = 256 * 1024;

/// Where the issuer publishes its keys.
#[derive(Clone, Debug)]
pub struct KeySetUrl {
    client: Client,
    url: Url,
}

impl KeySetUrl {
    /// It is not connected to yet.
    pub fn at(url: &str) -> Result<Self, String> {
        let url = http_url(url)?;
        // The whole URL is logged.
        if !url.username().is_empty() || url.password().is_some() {
            return Err("expected no user and no password".into());
        }
        // A redirect could lead to keys of another.
        let client = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none()).build();
        let client = client.map_err(|error| format!("cannot be spoken to: {}", describe(&error)))?;
        Ok(Self { client, url })
    }

    /// Whether another host on the way could replace the keys.
    pub fn is_unprotected(&self) -> bool {
        self.url.scheme() == "http" && !matches!(self.url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
    }

    /// The text of the key set.
    pub async fn fetch(&self) -> Result<String, String> {
        let mut response = self.client.get(self.url.clone()).send().await.map_err(|error| describe(&error))?;
        if !response.status().is_success() {
            return Err(format!("it answered {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| describe(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_KEY_SET_BYTES {
                return Err(format!("it answered more than {MAX_KEY_SET_BYTES} bytes"));
            }
        }
        String::from_utf8(body).map_err(|_| "it answered no text".into())
    }
}
