//! A key set served on localhost, and tokens signed with its keys.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};
use stream_events::clock;

/// A key pair made for this run.
pub struct TestKey {
    pub private: EncodingKey,
    pub pem: String,
    public: Value,
}

/// The issuer's key, and one that is not the issuer's.
pub static ISSUERS: LazyLock<TestKey> = LazyLock::new(TestKey::generate);
pub static ANOTHER: LazyLock<TestKey> = LazyLock::new(TestKey::generate);

impl TestKey {
    fn generate() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let private = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        let public = Jwk::from_encoding_key(&private, Algorithm::RS256).unwrap();
        let pem = pair.public_key_pem();
        Self { private, pem, public: serde_json::to_value(public).unwrap() }
    }

    /// Its public half, as in a key set.
    pub fn jwk(&self, kid: &str) -> Value {
        let mut jwk = self.public.clone();
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk
    }
}

pub const AUDIENCE: &str = "https://gateway.example/push";
pub const ACCOUNT: &str = "pusher@project.iam.gserviceaccount.com";
pub const KID: &str = "key-1";

/// The claims of a token that is let in.
pub fn claims() -> Value {
    let now = clock::now_ms() / 1000;
    json!({
        "aud": AUDIENCE, "azp": "113774264463038321964", "email": ACCOUNT, "email_verified": true,
        "exp": now + 3600, "iat": now, "iss": "https://accounts.google.com", "sub": "1137742",
    })
}

/// Signs claims as the issuer does.
pub fn sign(claims: &Value) -> String {
    sign_with(&ISSUERS, KID, claims)
}

pub fn sign_with(key: &TestKey, kid: &str, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some(kid.to_owned());
    encode(&header, claims, &key.private).unwrap()
}

/// What the server does with a request.
#[derive(Clone)]
pub enum Behaviour {
    Serve {
        keys: Value,
        cache_control: String,
    },
    Answer(String),
    /// Takes the request and never answers.
    Hang,
    /// Answers, and goes on for ever.
    Endless,
}

impl Behaviour {
    pub fn keys(keys: &[Value], cache_control: &str) -> Self {
        Self::Serve { keys: json!({ "keys": keys }), cache_control: cache_control.to_owned() }
    }
}

pub struct KeyServer {
    pub address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<AtomicUsize>,
}

impl KeyServer {
    /// Serves the issuer's key.
    pub fn start() -> Self {
        Self::with(Behaviour::keys(&[ISSUERS.jwk(KID)], "public, max-age=3600"))
    }

    pub fn with(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let requests = Arc::<AtomicUsize>::default();
        let (of_server, counted) = (Arc::clone(&behaviour), Arc::clone(&requests));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let behaviour = of_server.lock().unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let behaviour = behaviour.clone();
                std::thread::spawn(move || answer(socket, behaviour));
            }
        });
        Self { address, behaviour, requests }
    }

    pub fn url(&self) -> String {
        format!("http://{}/certs", self.address)
    }

    /// From now on it behaves like this, and its requests are counted anew.
    pub fn set(&self, behaviour: Behaviour) {
        let mut current = self.behaviour.lock().unwrap();
        self.requests.store(0, Ordering::SeqCst);
        *current = behaviour;
    }

    /// How many requests were made of its present behaviour.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(mut socket: TcpStream, behaviour: Behaviour) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    let text = match behaviour {
        Behaviour::Serve { keys, cache_control } => {
            let body = keys.to_string();
            let length = body.len();
            format!(
                "HTTP/1.1 200 OK\r\nCache-Control: {cache_control}\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            )
        }
        Behaviour::Answer(text) => text,
        Behaviour::Hang => {
            // Until the peer gives up.
            socket.read_to_end(&mut Vec::new()).ok();
            return;
        }
        Behaviour::Endless => {
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"keys\":[").ok();
            while socket.write_all(&vec![b' '; 65_536]).is_ok() {}
            return;
        }
    };
    socket.write_all(text.as_bytes()).ok();
}
