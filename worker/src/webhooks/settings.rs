use clap::Args;
use dibs_common::{
    config::secret,
    error::{Error, Result},
    integrations::webhooks::{WebhookEndpoint, WebhookSecrets},
};
use secrecy::{ExposeSecret as _, SecretString};

/// The receivers of webhooks.
#[derive(Clone, Debug, Default, Args)]
pub struct WebhookSettings {
    /// The URL of the data platform, http or https. It receives every event of an order; left out, there is no delivery
    #[arg(long, env, value_parser = secret, hide_env_values = true)]
    pub data_platform_url: Option<SecretString>,
    /// The URL of the notifier, http or https. It receives every coupon that is issued; left out, there is no delivery
    #[arg(long, env, value_parser = secret, hide_env_values = true)]
    pub notification_url: Option<SecretString>,
    /// The secret of signatures, as Standard Webhooks defines it: `whsec_` and the base64 of 24 to 64 bytes. During
    /// rotation several secrets, with a space between them
    #[arg(long, env, value_parser = secret, hide_env_values = true)]
    pub webhook_secret: Option<SecretString>,
}

#[derive(Clone, Debug, Default)]
pub struct Webhooks {
    pub data_platform: Option<WebhookEndpoint>,
    pub notifications: Option<WebhookEndpoint>,
}

impl Webhooks {
    /// The secrets of all receivers, which share them.
    pub fn secrets(&self) -> Option<WebhookSecrets> {
        let endpoint = self.data_platform.as_ref().or(self.notifications.as_ref())?;
        Some(endpoint.secrets().clone())
    }
}

impl WebhookSettings {
    /// The endpoints that are set. None is connected to yet.
    ///
    /// # Errors
    ///
    /// A wrong setting, by name.
    pub fn webhooks(&self) -> Result<Webhooks> {
        // Also without a receiver: a wrong secret is found at the start, and not when a URL is added.
        let secrets = given(self.webhook_secret.as_ref()).map(WebhookSecrets::parse).transpose()?;
        let endpoint = |setting, url: Option<&SecretString>| match (given(url), &secrets) {
            (None, _) => Ok(None),
            (Some(url), Some(secrets)) => WebhookEndpoint::at(setting, url, secrets.clone()).map(Some),
            (Some(_), None) => Err(Error::Setting("WEBHOOK_SECRET", format!("expected one, as {setting} is set"))),
        };
        Ok(Webhooks {
            data_platform: endpoint("DATA_PLATFORM_URL", self.data_platform_url.as_ref())?,
            notifications: endpoint("NOTIFICATION_URL", self.notification_url.as_ref())?,
        })
    }
}

/// An empty setting is none.
fn given(setting: Option<&SecretString>) -> Option<&SecretString> {
    setting.filter(|text| !text.expose_secret().trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn refused(data_platform: &str, notification: &str, secret: &str) -> String {
        let settings = WebhookSettings {
            data_platform_url: Some(data_platform.into()),
            notification_url: Some(notification.into()),
            webhook_secret: Some(secret.into()),
        };
        settings.webhooks().map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn wrong_settings_of_webhooks_are_refused_with_a_sentence_that_names_them() {
        assert_eq!(refused("", "", ""), "", "empty ones are none");
        assert_eq!(refused("https://user:secret@data.example/in", "http://127.0.0.1:9", SECRET), "");
        assert_eq!(
            refused("https://data.example", "", ""),
            "WEBHOOK_SECRET: expected one, as DATA_PLATFORM_URL is set"
        );
        assert!(refused("", "mailto:me", SECRET).starts_with("NOTIFICATION_URL: expected http:// or https://"));
        assert!(refused("", "", "oops").starts_with("WEBHOOK_SECRET: expected whsec_"), "also without receivers");
    }

    #[test]
    fn secrets_of_webhooks_are_not_shown() {
        let settings = WebhookSettings {
            data_platform_url: Some("https://user:hidden@data.example/in".into()),
            notification_url: None,
            webhook_secret: Some(SECRET.into()),
        };
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hidden") && !shown.contains("MfKQ"), "{shown}");
    }
}
