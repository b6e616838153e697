//! Inputs of the token targets: any bytes, a valid token with changes, or claims that the issuer
//! has signed.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::Value;

/// Token that an input describes.
pub enum Tried {
    /// Token that the issuer has not signed.
    Forged(Vec<u8>),
    /// Token that the issuer has signed, with its header and claims.
    Signed { token: String, header: Vec<u8>, claims: Vec<u8> },
}

/// Issuer that makes tokens of inputs.
pub struct Issuer<'a> {
    /// Key to sign with.
    pub key: &'a EncodingKey,
    /// Algorithm to sign with.
    pub algorithm: Algorithm,
    /// Header of an accepted token.
    pub header: &'a str,
    /// Claims of an accepted token.
    pub claims: &'a str,
}

impl Issuer<'_> {
    /// Makes a token of an input. `{…}` is claims; `h{…}`, a line end and `{…}` are a header and
    /// claims. After `=` comes a token, after `~` the changes to a valid one: offsets of two bytes,
    /// each with a byte. Returns `None` for any other input.
    pub fn token(&self, input: &[u8]) -> Option<Tried> {
        match input.split_first()? {
            (b'{', _) => self.sign(self.header.as_bytes(), input),
            (b'h', rest) => {
                let line_end = rest.iter().position(|byte| *byte == b'\n')?;
                self.sign(&rest[..line_end], &rest[line_end + 1..])
            }
            (b'~', edits) => self.tampered(edits),
            (b'=', token) => Some(Tried::Forged(token.to_vec())),
            _ => None,
        }
    }

    fn sign(&self, header: &[u8], claims: &[u8]) -> Option<Tried> {
        let part = |json: &[u8]| URL_SAFE_NO_PAD.encode(json);
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = crypto::sign(signed.as_bytes(), self.key, self.algorithm).ok()?;
        let token = format!("{signed}.{signature}");
        Some(Tried::Signed { token, header: header.to_vec(), claims: claims.to_vec() })
    }

    fn tampered(&self, edits: &[u8]) -> Option<Tried> {
        let signed = self.sign(self.header.as_bytes(), self.claims.as_bytes())?;
        let Tried::Signed { token: good, .. } = &signed else { return None };
        let mut token = good.clone().into_bytes();
        for edit in edits.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % (token.len() + 1);
            match edit[2] {
                // Inserts a byte, removes a byte, cuts off the end, or replaces a byte.
                b'+' => token.insert(at, b'A'),
                b'-' if at < token.len() => drop(token.remove(at)),
                b'<' => token.truncate(at),
                other if at < token.len() => token[at] = other,
                _ => {}
            }
        }
        if token.trim_ascii() == good.as_bytes() {
            Some(signed)
        } else {
            Some(Tried::Forged(token))
        }
    }
}

/// Returns the tree of a JSON text, or `None` if parsers can disagree about the text: a field that
/// occurs twice. The tree keeps one of the two, so it has fewer colons than the text.
pub fn plain(json: &[u8]) -> Option<Value> {
    let tree: Value = serde_json::from_slice(json).ok()?;
    let json = str::from_utf8(json).ok().filter(|json| !json.contains('\\'))?;
    let colons = |text: &str| text.matches(':').count();
    (colons(&tree.to_string()) == colons(json)).then_some(tree)
}

/// Returns true if the claim is the wanted string, or a list of strings with it.
pub fn names(claim: &Value, wanted: &str) -> bool {
    let list = claim.as_array().filter(|list| list.iter().all(Value::is_string));
    claim == wanted || list.is_some_and(|list| list.iter().any(|one| one == wanted))
}

/// Returns true for a header that a key of this algorithm must never verify.
pub fn is_strange(header: &Value, algorithm: &str) -> bool {
    header["alg"] != algorithm || !header["crit"].is_null()
}
