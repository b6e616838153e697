"""A gateway and a Redis, started on this machine as the manifests say."""

import base64
import contextlib
import http.server
import json
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

from manifests import ROOT
from ports import free_port

BUILT = [ROOT / "target" / profile / "stream-events" for profile in ("debug", "release", "dist")]
# The newest that was built here.
BINARY = max((path for path in BUILT if path.exists()), key=lambda path: path.stat().st_mtime,
             default=None)
NO_BINARY = "that the settings start a gateway, since none is built (cargo build)"
REDIS = shutil.which("valkey-server") or shutil.which("redis-server")
# Seconds. A machine with other work than this takes long for what takes a second elsewhere.
PATIENCE = 60
NO_REDIS = "that replicas share the log, since there is no redis-server"


class _Keys(http.server.BaseHTTPRequestHandler):
    """A key set with one RSA key, of which nobody has the private half."""

    modulus = base64.urlsafe_b64encode(b"\xff" + secrets.token_bytes(254) + b"\xff").decode()
    text = json.dumps({"keys": [{"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256",
                                 "e": "AQAB", "n": modulus.rstrip("=")}]}).encode()

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def issuer():
    """Serves the keys of push tokens, which Google does elsewhere; gives its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Keys)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/certs"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def gateway(args, settings):
    """The process, and the URLs of its public and its ops listener, on ports that are free."""
    environment = {name: text for name, text in os.environ.items()
                   if not name.startswith("STREAM_EVENTS_")}
    environment |= settings | {"STREAM_EVENTS_LISTEN": "127.0.0.1:0",
                               "STREAM_EVENTS_OPS_LISTEN": "127.0.0.1:0"}
    process = subprocess.Popen([BINARY, *args], env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if '"message":"listening"' in line:
                break
        else:
            raise AssertionError(f"it does not start: {''.join(said)}")
        # Else the pipe fills, and the gateway waits.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        entry = json.loads(line)
        yield process, f"http://{entry['listen']}", f"http://{entry['ops_listen']}"
    finally:
        process.kill()
        process.wait()


def refusal(args, settings):
    """Starts a gateway that is to refuse; gives its exit code and what it said."""
    environment = {"PATH": os.environ["PATH"]} | settings | {
        "STREAM_EVENTS_LISTEN": "127.0.0.1:0", "STREAM_EVENTS_OPS_LISTEN": "127.0.0.1:0"}
    done = subprocess.run([BINARY, *args], env=environment, text=True, timeout=PATIENCE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def publish(url, topic, data):
    """Publishes a message with the program's own command."""
    subprocess.run([BINARY, "publish", "--url", url, "--topic", topic, data], check=True,
                   timeout=PATIENCE, stdout=subprocess.DEVNULL)


def status(url, **options):
    """The status of an answer, also of one that is no success."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=PATIENCE) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def until(done, limit=PATIENCE):
    """Waits until it is true."""
    end = time.monotonic() + limit
    while not done():
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {done}")
        time.sleep(0.1)


@contextlib.contextmanager
def redis_server(script, conf, directory):
    """Runs the container's own script, its paths in a directory; gives the process and the port."""
    port = free_port()
    directory = pathlib.Path(directory)
    (directory / "data").mkdir()
    (directory / "redis-password").write_text(secrets.token_hex(32))
    conf = conf.replace("dir /data", f"dir {directory}/data")
    (directory / "redis.conf").write_text(f"{conf}\nbind 127.0.0.1\nport {port}\n")
    for path in ("/etc/redis", "/etc/stream-events"):
        script = script.replace(path, str(directory))
    process = subprocess.Popen(["/bin/sh", "-euc", script.replace("valkey-server", REDIS)],
                               stdout=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port))
        yield process, port
    finally:
        process.kill()
        process.wait()


def _listens(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
