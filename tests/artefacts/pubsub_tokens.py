"""Checks who may call the fake Pub/Sub, and makes what callers need: certificates, key files, a metadata server."""

import http.server
import json
import subprocess
import threading

from google.auth import jwt

ACCOUNT = "stream-events@test.iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# The message that Pub/Sub sends.
UNAUTHENTICATED = ("Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or "
                   "other valid authentication credential.")


class Tokens:
    """Tells whether the metadata of a call has a good token: a given one, or one that a key has signed."""

    def __init__(self, token=None, public_key=None):
        self.token, self.public_key = token, public_key

    def is_good(self, metadata):
        kind, _, token = dict(metadata).get("authorization", "").partition(" ")
        if kind != "Bearer":
            return False
        return token == self.token if self.token else self._is_signed(token)

    def _is_signed(self, token):
        try:
            claims = jwt.decode(token, certs=self.public_key)
        except ValueError:
            return False
        return claims["iss"] == ACCOUNT and SCOPE in claims["scope"].split()


def certificate(folder):
    """Makes tls.key and the self-signed tls.crt for 127.0.0.1. Returns the path of tls.crt."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2", "-pkeyopt",
               "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
               "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", folder / "tls.key", "-out",
               folder / "tls.crt"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "tls.crt"


def key_file(path):
    """Makes a key file of a service account, as Google does. Returns its public key."""
    def openssl(*arguments, **options):
        return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True, **options).stdout
    key = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    path.write_text(json.dumps({
        "type": "service_account", "project_id": "test", "private_key_id": "1", "private_key": key,
        "client_email": ACCOUNT, "client_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com"}))
    return openssl("pkey", "-pubout", input=key)


class MetadataServer(http.server.ThreadingHTTPServer):
    """The part of GKE's metadata server that has tokens. `address` is for GCE_METADATA_HOST."""

    def __init__(self, stack, token):
        super().__init__(("127.0.0.1", 0), _Metadata)
        self.token = token
        self.address = f"127.0.0.1:{self.server_port}"
        stack.callback(self.server_close)
        stack.callback(self.shutdown)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Metadata(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answers = {"instance/service-accounts/default/token": json.dumps(
                       {"access_token": self.server.token, "expires_in": 3600, "token_type": "Bearer"}),
                   "universe/universe-domain": "googleapis.com"}
        text = answers.get(self.path.removeprefix("/computeMetadata/v1/").split("?")[0])
        if self.headers["Metadata-Flavor"] != "Google" or text is None:
            return self.send_error(403 if text else 404)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Metadata-Flavor", "Google")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass
