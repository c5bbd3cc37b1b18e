//! The keys that tokens of users are verified with.

use dibs_common::error::{Error, Result};
use jsonwebtoken::{
    Algorithm, DecodingKey, Header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

const SECRET_SETTING: &str = "AUTH_JWT_SECRET";
/// The hash of HS256: a shorter key is easier to guess than the hash (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// During rotation the old and the new one count.
const MAX_SECRETS: usize = 8;
const MAX_KEYS: usize = 64;
/// RSA keys of 2048 bits (RFC 7518, section 3.3), and no longer than 8192, as verification gets slow.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// Each key is for one algorithm, so that a token cannot choose another one for it (RFC 8725, section 3.1).
#[derive(Clone)]
pub struct VerificationKeys(Vec<VerificationKey>);

#[derive(Clone)]
struct VerificationKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl VerificationKeys {
    /// The secrets of `AUTH_JWT_SECRET`: one, or several with a space between them.
    pub fn of_secrets(secrets: &SecretString) -> Result<Self> {
        let wrong = |why: String| Err(Error::Setting(SECRET_SETTING, why));
        let secrets: Vec<&str> = secrets.expose_secret().split_whitespace().collect();
        if !(1..=MAX_SECRETS).contains(&secrets.len()) {
            return wrong(format!("expected 1 to {MAX_SECRETS} secrets, got {}", secrets.len()));
        }
        if let Some(short) = secrets.iter().find(|secret| secret.len() < MIN_SECRET_BYTES) {
            return wrong(format!("expected at least {MIN_SECRET_BYTES} characters, got {}", short.len()));
        }
        let key = |secret: &&str| VerificationKey {
            id: None,
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret.as_bytes()),
        };
        Ok(Self(secrets.iter().map(key).collect()))
    }

    /// The signing keys of a JSON Web Key Set that are for one of `algorithms`. Others in it are left out: an issuer
    /// may also publish keys for encryption, and of algorithms to come.
    ///
    /// # Errors
    /// What was expected, when there is none.
    pub fn of_key_set(text: &str, algorithms: &[Algorithm]) -> Result<Self, String> {
        let set: Value = serde_json::from_str(text).map_err(|error| format!("expected a JSON Web Key Set: {error}"))?;
        let keys = set["keys"].as_array().ok_or("expected a JSON Web Key Set, an object with 'keys'")?;
        if keys.len() > MAX_KEYS {
            return Err(format!("expected at most {MAX_KEYS} keys, got {}", keys.len()));
        }
        // Each by itself: one that cannot be read must not hide the others.
        let keys = keys.iter().filter_map(|key| serde_json::from_value(key.clone()).ok());
        let usable: Vec<VerificationKey> =
            keys.filter_map(|key| usable(&key)).filter(|key| algorithms.contains(&key.algorithm)).collect();
        if usable.is_empty() {
            return Err(format!("expected a signing key for {algorithms:?}, found none"));
        }
        Ok(Self(usable))
    }

    /// The keys that a token with this header may be signed with; none: the key may be a new one.
    pub fn candidates(&self, header: &Header) -> Vec<&DecodingKey> {
        let of_algorithm = self.0.iter().filter(|key| key.algorithm == header.alg);
        let named = |key: &&VerificationKey| match (&key.id, &header.kid) {
            // Secrets have no id, and a token may name any.
            (None, _) => true,
            (Some(id), Some(wanted)) => id == wanted,
            (Some(_), None) => false,
        };
        let candidates: Vec<&DecodingKey> = of_algorithm.clone().filter(named).map(|key| &key.key).collect();
        // Without an id, the one key of the algorithm is meant. Of several it is not known which.
        let mut all = of_algorithm;
        match (all.next(), all.next()) {
            (Some(only), None) if header.kid.is_none() => vec![&only.key],
            _ => candidates,
        }
    }
}

/// A key, and the one algorithm that it is for.
fn usable(key: &Jwk) -> Option<VerificationKey> {
    let common = &key.common;
    let is_for_signatures = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let operations = common.key_operations.as_ref();
    let can_verify = operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !is_for_signatures || !can_verify {
        return None;
    }
    let (algorithm, name) = match &key.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        // Never a symmetric one: every reader of the set could sign with it.
        _ => return None,
    };
    if common.key_algorithm.as_ref().is_some_and(|stated| *stated != name) {
        return None;
    }
    let decoding = DecodingKey::from_jwk(key).ok()?;
    if let jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } = decoding.kind()
        && !RSA_BITS.contains(&bits(n))
    {
        return None;
    }
    Some(VerificationKey { id: common.key_id.clone(), algorithm, key: decoding })
}

/// Of a number in big-endian bytes.
fn bits(number: &[u8]) -> usize {
    let significant = number.iter().skip_while(|byte| **byte == 0);
    let mut significant = significant.peekable();
    let leading = significant.peek().map_or(0, |byte| byte.leading_zeros() as usize);
    significant.count() * 8 - leading
}
