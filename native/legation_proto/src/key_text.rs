//! Keys as people and files have them: the PEM of an identity, `ed25519:…` for a public key, the file of a network key.
//!
//! Text in, keys out, and back; nothing here opens a file or draws randomness.

use base64ct::{Base64UrlUnpadded, Encoding};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, KeypairBytes};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::identity::NetworkKey;
use crate::keyring::KeyringError;

/// What the text of a public key begins with (`protocol.md` 2.2).
const PUBLIC_PREFIX: &str = "ed25519:";

/// A new identity: the PKCS#8 PEM that has it, as `openssl genpkey -algorithm ed25519` would write it, and its public key.
/// `seed` is fresh randomness.
///
/// # Errors
/// [`KeyringError::NotPkcs8Ed25519`], which a seed gives no reason for.
pub fn identity_pem(seed: &[u8; 32]) -> Result<(Zeroizing<String>, [u8; 32]), KeyringError> {
    let public = SigningKey::from_bytes(seed).verifying_key().to_bytes();
    // Version 1, without the public half: OpenSSL 3.0 can't read version 2.
    let document = KeypairBytes { secret_key: *seed, public_key: None };
    let pem = document.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyringError::NotPkcs8Ed25519)?;
    Ok((pem, public))
}

/// A public key as text: `ed25519:` and 43 characters.
pub fn format_public_key(key: &[u8; 32]) -> String {
    format!("{PUBLIC_PREFIX}{}", Base64UrlUnpadded::encode_string(key))
}

/// The key that a text names. One key has one text: the two bits left over in the last character are zero. Whether it
/// is a good key says [`crate::identity::check_public_key`].
pub fn parse_public_key(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    let decoded = Base64UrlUnpadded::decode(text.strip_prefix(PUBLIC_PREFIX)?, &mut key).ok()?;
    if decoded.len() != 32 || format_public_key(&key) != text {
        return None;
    }
    Some(key)
}

/// The content of a network key's file: 32 bytes, or 64 hexadecimal digits and perhaps a newline.
pub fn parse_network_key(content: &[u8]) -> Option<NetworkKey> {
    let mut key = Zeroizing::new([0; 32]);
    if content.len() == 32 {
        key.copy_from_slice(content);
        return Some(NetworkKey::new(*key));
    }
    let digits = std::str::from_utf8(content).ok()?.trim_end();
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(NetworkKey::new(*key))
}

/// What a network key's file is to hold.
pub fn format_network_key(key: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in key {
        text.extend([byte >> 4, byte & 15].into_iter().filter_map(|digit| char::from_digit(u32::from(digit), 16)));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::Keyring;

    #[test]
    fn a_new_identity_is_read_back_from_its_pem() {
        let (pem, public) = identity_pem(&[7; 32]).unwrap();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{}", pem.len());
        assert_eq!(Keyring::from_pem(&pem, &[0; 32]).unwrap().public(), &public);
        assert_eq!(Keyring::new(&[7; 32], &[0; 32]).public(), &public);
    }

    #[test]
    fn a_public_key_has_one_text() {
        let text = format_public_key(&[0xff; 32]);
        assert_eq!(text, "ed25519:__________________________________________8");
        assert_eq!(parse_public_key(&text), Some([0xff; 32]));
        // The last character's two spare bits, one after the other.
        for last in ["9", "-", "_"] {
            assert_eq!(parse_public_key(&format!("{}{last}", &text[..text.len() - 1])), None, "{last}");
        }
        let zeros = format_public_key(&[0; 32]);
        for bad in [&text[8..], &zeros[..50], &format!("{zeros}A"), &format!("{zeros}="), "ed25519:", "", " ed25519:"] {
            assert_eq!(parse_public_key(bad), None, "{bad:?}");
        }
        let standard_alphabet = format!("ed25519:{}", "/".repeat(42) + "8");
        assert_eq!(parse_public_key(&standard_alphabet), None);
    }

    #[test]
    fn a_network_key_is_32_bytes_or_64_digits() {
        let expected = NetworkKey::new([0xab; 32]).id();
        let text = format_network_key(&[0xab; 32]);
        assert_eq!(*text, "ab".repeat(32) + "\n");
        for good in
            [text.as_bytes(), &[0xab; 32], "AB".repeat(32).as_bytes(), format!("{}\r\n", "aB".repeat(32)).as_bytes()]
        {
            assert_eq!(parse_network_key(good).unwrap().id(), expected);
        }
        let with_sign = format!("+a{}", "ab".repeat(31));
        for bad in [&[0xab; 31][..], &[0xab; 33], b"", with_sign.as_bytes(), "ab".repeat(33).as_bytes()] {
            assert!(parse_network_key(bad).is_none());
        }
    }
}
