//! Tokens and key sets of an issuer, right and wrong ones.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use dibs_common::clock;
use serde_json::{Value, json};

pub const ISSUER: &str = "https://issuer.test";
pub const AUDIENCE: &str = "dibs";

pub enum SigningKey {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
    Secret(Vec<u8>),
    /// `alg: none`.
    None,
}

impl SigningKey {
    pub fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")))
    }

    pub fn ec() -> Self {
        Self::Ec(Box::new(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")))
    }

    pub fn ed() -> Self {
        Self::Ed(Box::new(Ed25519KeyPair::generate().expect("a key")))
    }

    /// The bytes that an attacker may use as a secret: everyone knows them.
    pub fn public_key(&self) -> Vec<u8> {
        match self {
            Self::Rsa(key) => key.public_key().as_ref().to_vec(),
            Self::Ec(key) => key.public_key().as_ref().to_vec(),
            Self::Ed(key) => key.public_key().as_ref().to_vec(),
            Self::Secret(_) | Self::None => Vec::new(),
        }
    }

    /// Its public half, as a key set has it.
    pub fn jwk(&self, id: &str) -> Value {
        let public = self.public_key();
        match self {
            Self::Rsa(_) => {
                // RSAPublicKey in DER: a sequence of two integers, the first with a zero in front.
                let (modulus, exponent) = (&public[9..265], &public[267..]);
                json!({ "kty": "RSA", "use": "sig", "kid": id, "n": text(modulus), "e": text(exponent) })
            }
            Self::Ec(_) => json!({ "kty": "EC", "alg": "ES256", "kid": id, "crv": "P-256",
                "x": text(&public[1..33]), "y": text(&public[33..]) }),
            Self::Ed(_) => json!({ "kty": "OKP", "kid": id, "crv": "Ed25519", "x": text(&public) }),
            Self::Secret(secret) => json!({ "kty": "oct", "kid": id, "k": text(secret) }),
            Self::None => Value::Null,
        }
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
            Self::Secret(_) => "HS256",
            Self::None => "none",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signed");
                signature
            }
            Self::Ec(key) => key.sign(&random, message).expect("signed").as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Secret(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
            Self::None => Vec::new(),
        }
    }

    /// A token of these claims. `header` adds to the header.
    pub fn token(&self, claims: &Value, header: &Value) -> String {
        let mut head = json!({ "alg": self.algorithm(), "typ": "JWT" });
        for (name, value) in header.as_object().into_iter().flatten() {
            head[name] = value.clone();
        }
        let signed = format!("{}.{}", text(head.to_string().as_bytes()), text(claims.to_string().as_bytes()));
        format!("{signed}.{}", text(&self.sign(signed.as_bytes())))
    }

    /// A right token of a user, of the key with this id.
    pub fn of_user(&self, user: u64, id: &str) -> String {
        self.token(&claims(user), &json!({ "kid": id }))
    }
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn claims(user: u64) -> Value {
    json!({ "sub": user.to_string(), "iss": ISSUER, "aud": AUDIENCE, "exp": clock::now().timestamp() + 600 })
}

/// The claims of a user, with another value of one.
pub fn with_claim(user: u64, name: &str, value: Value) -> Value {
    let mut claims = claims(user);
    claims[name] = value;
    claims
}
