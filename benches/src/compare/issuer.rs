//! Who signs push tokens, for the runs in which each push is verified.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::json;
use stream_events::clock;
use tempfile::TempDir;

use crate::Result;

pub const AUDIENCE: &str = "https://gateway.example/push";
pub const ACCOUNT: &str = "pusher@project.iam.gserviceaccount.com";
const KID: &str = "key-1";
const VALID_S: u64 = 24 * 3600;

/// A key set on localhost and a token that is signed with its key.
#[derive(Debug)]
pub struct Issuer {
    address: SocketAddr,
    folder: TempDir,
}

impl Issuer {
    pub fn start() -> Result<Self> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?;
        let private = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes())?;
        let mut public = serde_json::to_value(Jwk::from_encoding_key(&private, Algorithm::RS256)?)?;
        public["kid"] = KID.into();
        public["use"] = "sig".into();
        let keys = json!({ "keys": [public] }).to_string();
        let now = clock::now_ms() / 1000;
        let claims = json!({
            "aud": AUDIENCE, "azp": "113774264463038321964", "email": ACCOUNT,
            "email_verified": true, "exp": now + VALID_S, "iat": now,
            "iss": "https://accounts.google.com", "sub": "113774264463038321964",
        });
        let header = Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::RS256) };
        let folder = TempDir::new()?;
        std::fs::write(token_file(folder.path()), encode(&header, &claims, &private)?)?;

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                answer(socket, &keys);
            }
        });
        Ok(Self { address, folder })
    }

    pub fn url(&self) -> String {
        format!("http://{}/certs", self.address)
    }

    pub fn token_file(&self) -> PathBuf {
        token_file(self.folder.path())
    }
}

fn token_file(folder: &Path) -> PathBuf {
    folder.join("token")
}

fn answer(mut socket: TcpStream, keys: &str) {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    // If the gateway does not want it any more, it says so itself.
    let _ = write!(
        socket,
        "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=3600\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{keys}",
        keys.len()
    );
}
