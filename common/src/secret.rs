//! Comparison, hashing and creation of secrets.

use std::fmt;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
    rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    domain::api_key::KEY_PREFIX,
    error::{Error, Result},
};

/// Compares in a time that does not depend on where the two differ. It may depend on their lengths.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

/// The SHA-256 of a credential. Only of secrets with enough random bits: a password could be guessed from it.
pub fn sha256(secret: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret).as_ref());
    hash
}

/// 256 random bits in base64url.
pub fn random_text() -> Result<String> {
    let mut bits = [0; 32];
    rand::fill(&mut bits).map_err(|_| Error::internal("the system gives no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bits))
}

/// Bytes in hexadecimal.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A new API key: `dibs_` and 256 random bits in base64url.
pub struct ApiKeySecret(SecretString);

impl ApiKeySecret {
    pub fn generate() -> Result<Self> {
        Ok(Self(format!("{KEY_PREFIX}{}", random_text()?).into()))
    }

    pub fn hash(&self) -> [u8; 32] {
        sha256(self.0.expose_secret().as_bytes())
    }

    /// The text of the key, to be shown once.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKeySecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_texts_are_equal() {
        assert!(constant_time_eq(b"token", b"token"));
        assert!(constant_time_eq(b"", b""));
        for other in [&b""[..], b"toke", b"tokem", b"uoken", b"tokens"] {
            assert!(!constant_time_eq(other, b"token"), "{other:?}");
        }
    }

    #[test]
    fn a_new_key_is_unlike_any_other_and_is_not_printed() {
        let (one, other) = (ApiKeySecret::generate().expect("a key"), ApiKeySecret::generate().expect("a key"));
        assert_eq!(one.expose().len(), KEY_PREFIX.len() + 43);
        assert!(one.expose().starts_with("dibs_") && one.expose() != other.expose());
        assert_eq!(one.hash(), sha256(one.expose().as_bytes()));
        assert!(!format!("{one:?}").contains(&one.expose()[5..10]));
    }
}
