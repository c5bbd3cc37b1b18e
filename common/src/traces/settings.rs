use clap::Args;
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    config::secret,
    error::{Error, Result},
    integrations::http::http_url,
};

/// Where traces go. The names are those of the OpenTelemetry specification.
#[derive(Clone, Debug, Args)]
pub struct TraceSettings {
    /// Where traces are sent by OTLP over HTTP, without the path `v1/traces`, such as <http://localhost:4318>; none when
    /// left out
    #[arg(long, env, value_parser = secret, hide_env_values = true)]
    pub otel_exporter_otlp_endpoint: Option<SecretString>,
    /// Of the requests that come without a trace, the share that begins one, 0 to 1
    #[arg(long, env, default_value_t = 0.01, value_parser = share)]
    pub otel_traces_sampler_arg: f64,
}

impl TraceSettings {
    /// The URL that spans are sent to; none when traces are off.
    pub(super) fn url(&self) -> Result<Option<Url>> {
        let Some(endpoint) = &self.otel_exporter_otlp_endpoint else { return Ok(None) };
        let endpoint = endpoint.expose_secret().trim();
        if endpoint.is_empty() {
            return Ok(None);
        }
        let mut url = http_url(endpoint).map_err(|why| Error::Setting("OTEL_EXPORTER_OTLP_ENDPOINT", why))?;
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Ok(Some(url))
    }

    /// Refuses what nothing can be sent to.
    pub fn check(&self) -> Result<()> {
        self.url().map(drop)
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1, such as 0.01".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(endpoint: &str) -> Result<Option<String>> {
        let otel_exporter_otlp_endpoint = Some(endpoint.into());
        let settings = TraceSettings { otel_exporter_otlp_endpoint, otel_traces_sampler_arg: 0.01 };
        Ok(settings.url()?.map(String::from))
    }

    #[test]
    fn spans_go_to_the_path_below_the_endpoint() {
        for (endpoint, expected) in [
            ("http://localhost:4318", Some("http://localhost:4318/v1/traces")),
            (
                "https://user:secret@collector.example/otlp/",
                Some("https://user:secret@collector.example/otlp/v1/traces"),
            ),
            (" ", None),
        ] {
            assert_eq!(url(endpoint).expect("valid").as_deref(), expected);
        }
        let why = url("localhost:4318").expect_err("refused").to_string();
        assert!(why.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: expected http:// or https://"), "{why}");
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert_eq!(share("0.25"), Ok(0.25));
        for wrong in ["-0.1", "1.1", "NaN", "half", ""] {
            share(wrong).expect_err(wrong);
        }
    }
}
