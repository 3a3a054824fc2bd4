//! Keys and signatures (`protocol.md` 2, 3).

use std::collections::HashMap;

use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};

use crate::random::fresh;

/// A realm's: the identity, the online key, and one for each engine.
pub struct Keys {
    pub identity: SigningKey,
    pub online: SigningKey,
    engines: HashMap<String, SigningKey>,
}

impl Keys {
    pub fn new(identity: SigningKey) -> Keys {
        Keys { identity, online: SigningKey::from_bytes(&fresh()), engines: HashMap::new() }
    }

    /// A realm that nobody knows.
    pub fn stranger() -> Keys {
        Keys::new(SigningKey::from_bytes(&fresh()))
    }

    /// # Errors
    /// What is wrong with the text.
    pub fn from_pem(pem: &str) -> Result<Keys, String> {
        SigningKey::from_pkcs8_pem(pem).map(Keys::new).map_err(|error| error.to_string())
    }

    pub fn public(&self) -> [u8; 32] {
        self.identity.verifying_key().to_bytes()
    }

    /// 2.1
    pub fn realm(&self) -> [u8; 32] {
        realm_id(&self.public())
    }

    /// The engine's key, made when it is first asked for; the online key for the empty name.
    pub fn of(&mut self, engine: &str) -> &SigningKey {
        if engine.is_empty() {
            return &self.online;
        }
        self.engines.entry(engine.to_owned()).or_insert_with(|| SigningKey::from_bytes(&fresh()))
    }
}

pub fn realm_id(identity: &[u8; 32]) -> [u8; 32] {
    *blake3::hash(identity).as_bytes()
}

/// 2.3: the key itself stands for the network where something is keyed with it, its id where something is signed.
#[derive(Clone, Copy, Default)]
pub struct Network {
    pub key: [u8; 32],
    pub id: [u8; 32],
}

impl Network {
    pub fn of(key: [u8; 32]) -> Network {
        Network { key, id: blake3::derive_key("legation/1/network-id", &key) }
    }
}

/// What is signed (3.1).
pub fn signed_bytes(purpose: &str, network: &Network, body: &[u8]) -> Vec<u8> {
    [b"legation/1/", purpose.as_bytes(), &[0], &network.id, blake3::hash(body).as_bytes()].concat()
}

pub fn sign(key: &SigningKey, purpose: &str, network: &Network, body: &[u8]) -> [u8; 64] {
    key.sign(&signed_bytes(purpose, network, body)).to_bytes()
}

/// The text form of a public key (2.2).
pub fn public_from_text(text: &str) -> Option<[u8; 32]> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = text.strip_prefix("ed25519:").filter(|digits| digits.len() == 43)?;
    let mut bits = Vec::new();
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|known| *known == digit)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1 == 1));
    }
    let bytes: Vec<u8> =
        bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect();
    bytes.try_into().ok()
}
