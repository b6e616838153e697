"""The gateway answers as its OpenAPI document says, whatever schemathesis sends to it."""

import contextlib
import os
import pathlib
import re
import secrets
import subprocess
import sys
import tempfile
import unittest

import gateway
from api_tokens import gateway_with_tokens, reader_token

HERE = pathlib.Path(__file__).parent
SCHEMATHESIS = pathlib.Path(sys.executable).parent / "schemathesis"
SEED = int(os.environ.get("SEED", secrets.randbelow(2 ** 32)))
# Of each run, in seconds. The runs are side by side. A busy machine needs more: to start them alone may
# take it most of 30 s.
TIME_MAX = round(30 * min(4, max(1, os.getloadavg()[0] / os.cpu_count())))
# Streams end by themselves. Poison is refused, so that a status tells an invalid body from a valid one.
FLAGS = {"STREAM_EVENTS_STREAM_AGE_MAX": "1s", "STREAM_EVENTS_POISON": "nack",
         "STREAM_EVENTS_LOG_FORMAT": "json"}
OPEN = FLAGS | {"STREAM_EVENTS_PUSH_AUTH": "none", "STREAM_EVENTS_READ_AUTH": "anonymous"}


def schemathesis(url, document, *options):
    """Starts a run, in a directory of its own for what it writes."""
    directory = tempfile.TemporaryDirectory()
    command = [SCHEMATHESIS, "--config-file", HERE / "schemathesis.toml", "run",
               f"{document}/openapi.json", "--url", url, "--workers", "1",
               "--max-time", str(TIME_MAX), "--seed", str(SEED),
               # On a busy machine all is slow: its own making of requests, and answers.
               "--suppress-health-check", "all", "--request-timeout", str(gateway.PATIENCE), *options]
    process = subprocess.Popen(command, cwd=directory.name, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": str(HERE)})
    return process, directory


@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
class Requests(unittest.TestCase):
    def test_schemathesis_finds_nothing(self):
        print(f"schemathesis: SEED={SEED}")
        with contextlib.ExitStack() as stack:
            _, dev, dev_ops = stack.enter_context(gateway.gateway(["dev"], FLAGS))
            _, serve, _ = stack.enter_context(gateway.gateway(["serve"], OPEN))
            jwt, secret = stack.enter_context(gateway_with_tokens(FLAGS))
            bearer = ("--header", f"Authorization: Bearer {reader_token(secret)}")
            # A stream takes a second. The other paths would wait for it. schemathesis opens no
            # WebSockets: all its requests to /ws would get 426.
            streams = ("--include-path", "/events")
            others = ("--exclude-path-regex", "^/(events|metrics|ws)$")
            ops = ("--include-path-regex", "^/(metrics|healthz|readyz)$")
            runs = {
                "dev, streams": schemathesis(dev, dev, *streams),
                "dev": schemathesis(dev, dev, *others),
                "ops listener": schemathesis(dev_ops, dev, *ops),
                "serve": schemathesis(serve, serve, *others),
                "serve, streams with tokens": schemathesis(jwt, jwt, *streams, *bearer),
                "serve, tokens": schemathesis(jwt, jwt, *others, *bearer),
            }
            for name, (process, directory) in runs.items():
                report = process.communicate()[0]
                with self.subTest(name), directory:
                    self.assertEqual(process.returncode, 0, f"SEED={SEED}\n{report}")
                    cases = re.search(r"(\d+) generated", report)
                    self.assertTrue(cases, report)
                    print(f"schemathesis, {name}: {cases[1]} requests")
