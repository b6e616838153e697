//! Inputs for tokens: bytes from anywhere, a good token that was tampered with, or claims that the
//! issuer itself has signed.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::Value;

/// What an input stands for.
pub enum Tried {
    /// The issuer never wrote it.
    Forged(Vec<u8>),
    /// It wrote this header and these claims.
    Signed { token: String, header: Vec<u8>, claims: Vec<u8> },
}

/// How inputs become tokens.
pub struct Issuer<'a> {
    pub key: &'a EncodingKey,
    pub algorithm: Algorithm,
    /// Of tokens that are let in.
    pub header: &'a str,
    pub claims: &'a str,
}

impl Issuer<'_> {
    /// `{…}` is claims; `h{…}`, a line end and `{…}` are a header and claims. After `=` comes a
    /// token, after `~` what is done to a good one: offsets of two bytes, each with a byte. None if
    /// it says nothing.
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
                // A byte put in, one taken out, the end cut off, or one that is another.
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

/// The tree of a JSON text, if it has that tree only: a field that is there twice is read in more
/// ways than one. Then the tree, which keeps one of the two, has fewer colons than the text.
pub fn plain(json: &[u8]) -> Option<Value> {
    let tree: Value = serde_json::from_slice(json).ok()?;
    let json = str::from_utf8(json).ok().filter(|json| !json.contains('\\'))?;
    let colons = |text: &str| text.matches(':').count();
    (colons(&tree.to_string()) == colons(json)).then_some(tree)
}

/// Whether the claim is this text, or a list of texts with it.
pub fn names(claim: &Value, wanted: &str) -> bool {
    let list = claim.as_array().filter(|list| list.iter().all(Value::is_string));
    claim == wanted || list.is_some_and(|list| list.iter().any(|one| one == wanted))
}

/// A header that this algorithm's key must never be used with.
pub fn is_strange(header: &Value, algorithm: &str) -> bool {
    header["alg"] != algorithm || !header["crit"].is_null()
}
