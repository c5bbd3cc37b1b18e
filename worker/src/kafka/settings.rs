use std::{
    convert::Infallible,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use dibs_common::{
    config::secret,
    error::{Error, Result},
};
use secrecy::{ExposeSecret as _, SecretString};
use strum::IntoStaticStr;

/// The protocol of connections to brokers, as Kafka spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, IntoStaticStr)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SecurityProtocol {
    #[default]
    Plaintext,
    SaslPlaintext,
    Ssl,
    SaslSsl,
}

impl SecurityProtocol {
    pub const fn has_user(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }

    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }
}

/// The SASL mechanism, as Kafka spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, IntoStaticStr)]
#[strum(const_into_str)]
pub enum SaslMechanism {
    #[default]
    #[value(name = "PLAIN")]
    #[strum(serialize = "PLAIN")]
    Plain,
    #[value(name = "SCRAM-SHA-256")]
    #[strum(serialize = "SCRAM-SHA-256")]
    ScramSha256,
    #[value(name = "SCRAM-SHA-512")]
    #[strum(serialize = "SCRAM-SHA-512")]
    ScramSha512,
}

/// The source of the ranking's sales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RankingSource {
    /// The outbox, by the relay.
    #[default]
    Outbox,
    /// Kafka's topics of paid and cancelled orders.
    Kafka,
}

#[derive(Clone, Debug, Default, Args)]
pub struct KafkaSettings {
    /// Kafka brokers, host:port and commas between; empty is none. Events are published to the topics order.created,
    /// order.paid, order.confirmed, order.cancelled, order.expired and coupon.issued; claim requests are consumed from
    /// coupon.issue.requested
    #[arg(long, env, default_value = "")]
    pub kafka_brokers: String,
    /// Prefix of the name of every topic and consumer group, to share brokers with others
    #[arg(long, env, default_value = "", value_parser = topic_prefix)]
    pub kafka_topic_prefix: String,
    /// The protocol of connections to brokers; SSL and `SASL_SSL` need a worker that was built with the feature
    /// kafka-tls
    #[arg(long, env, value_enum, default_value = "PLAINTEXT", ignore_case = true)]
    pub kafka_security_protocol: SecurityProtocol,
    /// The SASL mechanism, with `SASL_PLAINTEXT` and `SASL_SSL`; SCRAM needs the feature kafka-tls
    #[arg(long, env, value_enum, default_value = "PLAIN", ignore_case = true)]
    pub kafka_sasl_mechanism: SaslMechanism,
    /// The SASL user, with `SASL_PLAINTEXT` and `SASL_SSL`
    #[arg(long, env, hide_env_values = true)]
    pub kafka_sasl_user: Option<String>,
    /// The SASL password
    #[arg(long, env, value_parser = secret, hide_env_values = true)]
    pub kafka_sasl_password: Option<SecretString>,
    /// A file of certificates (PEM) that broker certificates are verified with, with SSL and `SASL_SSL`; without one,
    /// the system's
    #[arg(long, env, value_parser = path)]
    pub kafka_ssl_ca: Option<PathBuf>,
    /// The source of the ranking's sales: the outbox, or Kafka's topics order.paid and order.cancelled. The same for
    /// all workers
    #[arg(long, env, value_enum, default_value = "outbox", ignore_case = true)]
    pub ranking_source: RankingSource,
}

impl KafkaSettings {
    pub fn is_set(&self) -> bool {
        !self.kafka_brokers.trim().is_empty()
    }

    /// Rejects invalid combinations.
    pub fn check(&self) -> Result<()> {
        if !self.is_set() {
            return match self.ranking_source {
                RankingSource::Outbox => Ok(()),
                RankingSource::Kafka => wrong("RANKING_SOURCE", "kafka needs KAFKA_BROKERS, which is not set"),
            };
        }
        if !cfg!(feature = "kafka") {
            return wrong(
                "KAFKA_BROKERS",
                "this worker was built without Kafka; expected one built with --features kafka",
            );
        }
        if !self.kafka_brokers.split(',').all(is_broker) {
            return wrong("KAFKA_BROKERS", "expected host:port, and commas between several");
        }
        let protocol = self.kafka_security_protocol;
        self.check_certificates()?;
        let needs_tls = protocol.is_tls() || protocol.has_user() && self.kafka_sasl_mechanism != SaslMechanism::Plain;
        if needs_tls && !cfg!(feature = "kafka-tls") {
            let why = "TLS and SCRAM need a worker that was built with --features kafka-tls";
            return wrong("KAFKA_SECURITY_PROTOCOL", why);
        }
        match (protocol.has_user(), self.user(), self.password()) {
            (true, None, _) => wrong("KAFKA_SASL_USER", "expected a user, as KAFKA_SECURITY_PROTOCOL needs one"),
            (true, _, None) => wrong("KAFKA_SASL_PASSWORD", "expected the password of KAFKA_SASL_USER"),
            (false, None, Some(_)) => wrong("KAFKA_SASL_USER", "expected a user, as KAFKA_SASL_PASSWORD is set"),
            (false, Some(_), _) => {
                wrong("KAFKA_SECURITY_PROTOCOL", "expected SASL_PLAINTEXT or SASL_SSL, as KAFKA_SASL_USER is set")
            }
            _ => Ok(()),
        }
    }

    fn check_certificates(&self) -> Result<()> {
        let Some(file) = self.certificates() else { return Ok(()) };
        if !self.kafka_security_protocol.is_tls() {
            let why = "expected SSL or SASL_SSL in KAFKA_SECURITY_PROTOCOL, which alone use it";
            return wrong("KAFKA_SSL_CA", why);
        }
        let unreadable = |error| Error::Setting("KAFKA_SSL_CA", format!("expected a file that can be read: {error}"));
        // Read here, so that the error names the setting.
        std::fs::read(file).map(drop).map_err(unreadable)
    }

    /// The file of certificates; an empty name is none.
    pub fn certificates(&self) -> Option<&Path> {
        self.kafka_ssl_ca.as_deref().filter(|file| !file.as_os_str().is_empty())
    }

    /// The SASL user; an empty one is none.
    pub fn user(&self) -> Option<&str> {
        self.kafka_sasl_user.as_deref().filter(|user| !user.is_empty())
    }

    /// The SASL password; an empty one is none.
    pub fn password(&self) -> Option<&SecretString> {
        self.kafka_sasl_password.as_ref().filter(|password| !password.expose_secret().is_empty())
    }
}

fn wrong(name: &'static str, why: &str) -> Result<()> {
    Err(Error::Setting(name, why.into()))
}

/// Any name of a file; an empty one, too, which is none.
#[expect(clippy::unnecessary_wraps, reason = "clap asks for it")]
fn path(text: &str) -> Result<PathBuf, Infallible> {
    Ok(text.into())
}

fn is_broker(text: &str) -> bool {
    let Some((host, port)) = text.trim().rsplit_once(':') else { return false };
    !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Kafka takes names of up to 249 characters of these kinds; what follows the prefix needs some of them.
fn topic_prefix(text: &str) -> Result<String, String> {
    if text.len() <= 100 && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        Ok(text.into())
    } else {
        Err("expected at most 100 letters, digits, dots, underscores and hyphens".into())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Given {
        #[command(flatten)]
        kafka: KafkaSettings,
    }

    fn refused(arguments: &[&str]) -> String {
        match Given::try_parse_from([&["test"], arguments].concat()) {
            Err(error) => error.to_string(),
            Ok(given) => given.kafka.check().map_or_else(|error| error.to_string(), |()| String::new()),
        }
    }

    #[test]
    fn without_brokers_nothing_is_asked_for_unless_the_ranking_needs_them() {
        assert_eq!(refused(&[]), "");
        assert_eq!(refused(&["--kafka-brokers= ", "--kafka-sasl-user="]), "", "an empty one is none");
        assert!(refused(&["--ranking-source=kafka"]).contains("KAFKA_BROKERS"));
        assert!(refused(&["--kafka-topic-prefix=a/b"]).contains("letters"));
    }

    #[cfg(not(feature = "kafka"))]
    #[test]
    fn a_worker_without_kafka_refuses_brokers_with_a_sentence() {
        assert!(refused(&["--kafka-brokers=host:9092"]).contains("built without Kafka"));
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn wrong_settings_are_refused_with_a_sentence_that_names_them() {
        assert_eq!(refused(&["--kafka-brokers=host:9092, other:9092", "--ranking-source=kafka"]), "");
        for wrong in ["host", "host:", "host:port", "http://host:9092", "host:9092,"] {
            assert!(refused(&[&format!("--kafka-brokers={wrong}")]).contains("KAFKA_BROKERS"), "{wrong}");
        }
        let with = |more: &[&str]| refused(&[&["--kafka-brokers=host:9092"], more].concat());
        let (plain, user) = ("--kafka-security-protocol=sasl_plaintext", "--kafka-sasl-user=shop");
        assert_eq!(with(&[plain, user, "--kafka-sasl-password=secret"]), "");
        assert!(with(&[plain]).contains("KAFKA_SASL_USER"));
        assert!(with(&[plain, user]).contains("KAFKA_SASL_PASSWORD"));
        assert!(with(&[user]).contains("KAFKA_SECURITY_PROTOCOL"));
        assert!(with(&["--kafka-sasl-password=secret"]).contains("KAFKA_SASL_PASSWORD"));
        assert_eq!(with(&["--kafka-ssl-ca=", "--kafka-sasl-password="]), "", "empty ones are none");
        assert!(with(&["--kafka-ssl-ca=Cargo.toml"]).contains("KAFKA_SSL_CA"), "without TLS");
        for file in ["--kafka-ssl-ca=no/such/file", "--kafka-ssl-ca=src"] {
            let refused = with(&["--kafka-security-protocol=SSL", file]);
            assert!(refused.contains("KAFKA_SSL_CA") && refused.contains("read"), "{refused}");
        }
    }

    #[cfg(all(feature = "kafka", not(feature = "kafka-tls")))]
    #[test]
    fn a_worker_without_tls_refuses_it_with_a_sentence() {
        let brokers = "--kafka-brokers=host:9092";
        assert!(refused(&[brokers, "--kafka-security-protocol=SSL"]).contains("kafka-tls"));
        let scram = ["--kafka-security-protocol=SASL_PLAINTEXT", "--kafka-sasl-mechanism=SCRAM-SHA-512"];
        assert!(refused(&[&[brokers], &scram[..]].concat()).contains("kafka-tls"));
    }

    #[test]
    fn the_password_is_not_printed() {
        let settings = KafkaSettings {
            kafka_brokers: "host:9092".into(),
            kafka_sasl_user: Some("shop".into()),
            kafka_sasl_password: Some("secret".into()),
            ..KafkaSettings::default()
        };
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
