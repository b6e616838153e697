//! `stream-events token`, as a user meets it.

use std::{fs, path::Path};

use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};
use tempfile::TempDir;

use crate::support::{
    gateway::Gateway,
    process::{output, stream_events},
};

/// Writes a file, and returns its path.
fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn token(arguments: &[&str]) -> (bool, String) {
    output(&mut stream_events(&[&["token"], arguments].concat()))
}

/// Makes a token, which has to succeed.
fn made(key: &str, arguments: &[&str]) -> String {
    let (ok, text) = token(&[&["make", "--read-key-file", key], arguments].concat());
    assert!(ok, "{text}");
    text.trim().to_owned()
}

#[test]
fn a_gateway_accepts_a_made_token_of_each_kind_of_key() {
    let folder = TempDir::new().unwrap();
    let secret = file(&folder, "secret", "0123456789abcdef0123456789abcdef\n");
    let mut keys = vec![(secret.clone(), secret)];
    let kinds = [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256];
    for (i, kind) in kinds.into_iter().enumerate() {
        let pair = KeyPair::generate_for(kind).unwrap();
        let private = file(&folder, &format!("private{i}"), &pair.serialize_pem());
        keys.push((private, file(&folder, &format!("public{i}"), &pair.public_key_pem())));
    }
    for (private, public) in &keys {
        let gateway = Gateway::serve(&[
            ("push-auth", "none"),
            ("read-auth", "jwt"),
            ("read-key-file", public),
            ("read-audience", "gateway"),
        ]);
        let granted = ["--topic", "orders", "--audience", "gateway"];
        let bearer = format!("Bearer {}", made(private, &granted));
        let mut events = gateway.events_with("", &[("Authorization", &bearer)]);
        gateway.publish("others", "hidden");
        gateway.publish("orders", "seen");
        assert_eq!(events.next().data, "seen", "{private}");
    }
}

#[test]
fn what_a_token_grants_is_explained() {
    let folder = TempDir::new().unwrap();
    let key = file(&folder, "secret", "0123456789abcdef0123456789abcdef");
    let explain = |token_text: &str, more: &[&str]| {
        token(&[&["explain", token_text, "--read-key-file", &key], more].concat())
    };
    let filter = "attributes.a = \"1\"";
    let granted = ["--topic", "acme.*", "--subject", "alice", "--filter", filter];
    let reader = made(&key, &[&granted[..], &["--read-topics-claim", "app.topics"]].concat());
    let asked = ["--topic", "acme.orders", "--topic", "others"];
    let (ok, text) =
        explain(&reader, &[&asked[..], &["--read-topics-claim", "app.topics"]].concat());
    assert!(ok, "{text}");
    for line in [
        "subject: alice",
        "filter: attributes.a = \"1\"",
        "may read: acme.*",
        "  acme.orders: yes",
        "  others: no: no name or pattern of the token matches",
        "may publish to: nothing: the token is valid, but it has no claim publish",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let publisher = made(&key, &["--publish", "room.*"]);
    let (ok, text) = explain(&publisher, &[]);
    assert!(ok && text.contains("may publish to: room.*"), "{text}");
    assert!(text.contains("may read: nothing: the token is valid, but it has no claim for topics"));
    for (text, more, told) in [
        (reader.as_str(), &["--read-audience", "gateway"][..], "it lacks one of exp, aud and iss"),
        (&made(&key, &["--topic", "orders", "--expires", "0"]), &[], "it has expired"),
        ("no token", &[], "it is not a JWT"),
    ] {
        let (ok, said) = explain(text, more);
        assert!(!ok && said.contains(told), "{told}: {said}");
    }
    let another = file(&folder, "another", "another secret of at least 32 bytes");
    let (ok, text) = token(&["explain", &reader, "--read-key-file", &another]);
    assert!(!ok && text.contains("its signature does not match"), "{text}");
}

#[test]
fn what_cannot_be_a_token_is_refused() {
    let folder = TempDir::new().unwrap();
    let key = file(&folder, "secret", "0123456789abcdef0123456789abcdef");
    let short = file(&folder, "short", "short");
    let public = KeyPair::generate().unwrap().public_key_pem();
    let public = file(&folder, "public", &public);
    let nowhere = Path::new(&key).with_file_name("nowhere").to_str().unwrap().to_owned();
    for (key, arguments, told) in [
        (&key, &[][..], "give --topic or --publish"),
        (&key, &["--topic", "no topic"], "--topic: \"no topic\" is not a topic name"),
        (&key, &["--publish", "!"], "--publish: \"!\" is not a topic name"),
        (&key, &["--topic", "orders", "--filter", "x"], "--filter: at character"),
        (&key, &["--topic", "orders", "--expires", "soon"], "--expires: \"soon\": expected a time"),
        (&short, &["--topic", "orders"], "at least 32 are safe"),
        (&public, &["--topic", "orders"], "a public key, which cannot sign tokens"),
        (&nowhere, &["--topic", "orders"], "cannot read"),
    ] {
        let (ok, text) = token(&[&["make", "--read-key-file", key], arguments].concat());
        assert!(!ok && text.contains(told), "{told}: {text}");
        assert!(!text.contains("Usage: make"), "{text}");
    }
}
