use axum::http::Uri;
use clap::Args;
use reqwest::Url;

use crate::{
    error::{Error, Result},
    integrations::http::http_url,
};

/// Where traces go. The names are those of the OpenTelemetry specification.
#[derive(Clone, Debug, Args)]
pub struct TraceSettings {
    /// Where traces are sent by OTLP over HTTP, without the path `v1/traces`, such as <http://localhost:4318>; none when
    /// left out
    #[arg(long, env)]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// Of the requests that come without a trace, the share that begins one, 0 to 1
    #[arg(long, env, default_value = "0.01")]
    pub otel_traces_sampler_arg: String,
}

impl TraceSettings {
    /// The URL that spans are sent to; none when traces are off.
    pub(super) fn url(&self) -> Result<Option<Url>> {
        let endpoint = self.otel_exporter_otlp_endpoint.as_deref().unwrap_or_default().trim();
        if endpoint.is_empty() {
            return Ok(None);
        }
        let refused = |why: String| Error::Setting("OTEL_EXPORTER_OTLP_ENDPOINT", why);
        let mut url = http_url(endpoint).map_err(refused)?;
        // The library would not send them, and log them.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("expected no user and no password; OTEL_EXPORTER_OTLP_HEADERS has credentials".into()));
        }
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.set_path(&path);
        if url.as_str().parse::<Uri>().is_err() {
            return Err(refused("expected a host name or an address".into()));
        }
        Ok(Some(url))
    }

    /// The share of the requests without a trace that begin one.
    pub(super) fn share(&self) -> Result<f64> {
        let share = share(&self.otel_traces_sampler_arg);
        share.map_err(|why| Error::Setting("OTEL_TRACES_SAMPLER_ARG", why))
    }

    /// Refuses what nothing can be sent to. While traces are off, the share may be another program's.
    pub fn check(&self) -> Result<()> {
        if self.url()?.is_some() { self.share().map(drop) } else { Ok(()) }
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
        let settings = TraceSettings { otel_exporter_otlp_endpoint, otel_traces_sampler_arg: "0.01".into() };
        Ok(settings.url()?.map(String::from))
    }

    #[test]
    fn spans_go_to_the_path_below_the_endpoint() {
        for (endpoint, expected) in [
            ("http://localhost:4318", Some("http://localhost:4318/v1/traces")),
            ("https://collector.example/otlp/", Some("https://collector.example/otlp/v1/traces")),
            (" ", None),
        ] {
            assert_eq!(url(endpoint).expect("valid").as_deref(), expected);
        }
        for (wrong, expected) in [
            ("localhost:4318", "expected http:// or https://"),
            ("https://user:secret@collector.example", "expected no user and no password"),
            ("https://secret@collector.example", "expected no user and no password"),
            ("https://{{secret}}/", "expected "),
        ] {
            let why = url(wrong).expect_err(wrong).to_string();
            let names = why.starts_with(&format!("OTEL_EXPORTER_OTLP_ENDPOINT: {expected}"));
            assert!(names && !why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert_eq!(share("0.25"), Ok(0.25));
        for wrong in ["-0.1", "1.1", "NaN", "half", ""] {
            share(wrong).expect_err(wrong);
        }
    }
}
