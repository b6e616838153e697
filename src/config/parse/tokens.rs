//! Parser of the flags for tokens: who may push, read and publish.

use std::{net::IpAddr, path::PathBuf};

use crate::config::{PublishAuth, PushAuth, ReadAuth, ReadJwt, ReadKeys, parse::Values};

impl Values<'_> {
    /// Reads the flags for push tokens.
    pub(in crate::config) fn push_auth(&mut self) -> PushAuth {
        let open = [("off", Some(PushAuth::Off)), ("none", Some(PushAuth::None)), ("oidc", None)];
        if let Some(without_token) = self.choice("push-auth", &open) {
            return without_token;
        }
        let audiences = self.many::<String>("push-audience");
        let service_accounts = self.many::<String>("push-service-account");
        if audiences.is_empty() {
            self.problem("push-audience", "--push-auth oidc needs at least one audience");
        }
        if service_accounts.is_empty() {
            // Without a service account, any token that Google issued for the audience would pass.
            self.problem(
                "push-service-account",
                "--push-auth oidc needs at least one service account",
            );
        }
        PushAuth::Oidc { audiences, service_accounts }
    }

    /// Reads the flags for the tokens of readers and publishers, who share the keys and the checks.
    pub(in crate::config) fn read_and_publish_auth(&mut self) -> (ReadAuth, PublishAuth) {
        let is_reader = self.choice("read-auth", &[("anonymous", false), ("jwt", true)]);
        let publish = [("off", Some(false)), ("none", None), ("jwt", Some(true))];
        let publish = self.choice("publish-auth", &publish);
        let is_publisher = publish == Some(true);
        let checks = self.token_checks(is_reader, is_publisher).map(Box::new);
        let read_auth = match &checks {
            Some(checks) if is_reader => ReadAuth::Jwt(checks.clone()),
            _ => ReadAuth::Anonymous,
        };
        let publish_auth = match (publish, checks) {
            (None, _) => PublishAuth::None,
            (Some(true), Some(checks)) => PublishAuth::Jwt(checks),
            (Some(_), _) => PublishAuth::Off,
        };
        (read_auth, publish_auth)
    }

    /// Reads the checks of tokens. Returns `None` if neither readers nor publishers need tokens.
    fn token_checks(&mut self, is_reader: bool, is_publisher: bool) -> Option<ReadJwt> {
        let url = self.filled("read-jwks-url").map(str::to_owned);
        let file = self.filled("read-key-file").map(PathBuf::from);
        let audiences = self.many::<String>("read-audience");
        let issuers = self.many::<String>("read-issuer");
        let cookie = self.filled("read-cookie").map(str::to_owned);
        let topics_claim = self.text("read-topics-claim").unwrap_or_default().to_owned();
        if !is_reader && !is_publisher {
            let given = url.is_some() || file.is_some() || cookie.is_some();
            if given || !audiences.is_empty() || !issuers.is_empty() {
                self.problem("read-auth", "anonymous checks no tokens, but flags for tokens are given. Choose jwt (or --publish-auth jwt), or remove --read-jwks-url, --read-key-file, --read-cookie, --read-audience and --read-issuer");
            }
            return None;
        }
        let keys = match (url, file) {
            (Some(_), None) => ReadKeys::Url(self.jwks_url("read-jwks-url")),
            (None, Some(path)) => ReadKeys::File(path),
            _ => {
                let flag = if is_reader { "read-auth" } else { "publish-auth" };
                self.problem(flag, "jwt needs one of --read-jwks-url and --read-key-file");
                ReadKeys::Url(String::new())
            }
        };
        Some(ReadJwt { keys, audiences, issuers, cookie, topics_claim })
    }

    /// Reads the URL of a key set. It must be https, or http on loopback: an attacker on the
    /// network could replace keys that are sent in clear text, and sign tokens.
    pub(in crate::config) fn jwks_url(&mut self, flag: &str) -> String {
        let text = self.text(flag).unwrap_or_default();
        let url = reqwest::Url::parse(text).ok();
        let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
        let loopback = host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        match url.as_ref().map(reqwest::Url::scheme) {
            Some("https") => {}
            Some("http") if loopback => {}
            _ => self.problem(
                flag,
                format!("{text:?} must be an https URL, or an http URL on loopback"),
            ),
        }
        text.to_owned()
    }
}
