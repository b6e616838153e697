//! Base64 as the [JSON form of protocol buffers](https://protobuf.dev/programming-guides/json/)
//! allows it: both alphabets, with or without padding.

use base64::{
    DecodeError, Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Decodes a text. One alphabet holds for the whole text.
///
/// # Errors
/// The error of the standard alphabet, when neither alphabet fits.
pub(crate) fn decode(text: &str) -> Result<Bytes, DecodeError> {
    // Pub/Sub sends the standard alphabet with padding, which this decoder reads many bytes at a
    // time. The other decoder handles all other texts, and describes errors.
    if let Ok(decoded) = base64_simd::STANDARD.decode_to_vec(text) {
        return Ok(decoded.into());
    }
    let decoded = STANDARD.decode(text);
    let decoded = decoded.or_else(|err| URL_SAFE.decode(text).map_err(|_| err))?;
    Ok(decoded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_are_read_with_and_without_padding() {
        for (text, data) in [
            ("", ""),
            ("eA==", "x"),
            ("eA", "x"),
            ("Pz8/", "???"),
            ("Pz8_", "???"),
            ("Pj4+Pg==", ">>>>"),
            ("Pj4-Pg", ">>>>"),
        ] {
            assert_eq!(decode(text).unwrap(), data, "{text:?}");
        }
    }

    #[test]
    fn a_mix_of_alphabets_and_other_characters_are_refused() {
        for text in ["Pz8/Pz8_", "a!b", "eA==eA==", "\u{e9}", "e"] {
            assert!(decode(text).is_err(), "{text:?}");
        }
    }
}
