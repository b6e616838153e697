"""A gateway pulls over TLS with a token, as it does from Google, and says what is wrong when it has none."""

import contextlib
import json
import pathlib
import shutil
import tempfile
import unittest

from pull_processes import CAN_PULL, NO_PULL, SUBSCRIPTION, Gateway, PubSub, Reader, until
from pubsub_tokens import MetadataServer, certificate, key_file

UP = f'stream_events_pull_up{{subscription="{SUBSCRIPTION}"}}'


@unittest.skipUnless(CAN_PULL, NO_PULL)
@unittest.skipUnless(shutil.which("openssl"), "that a gateway pulls over TLS, since openssl is not installed")
class Tls(unittest.TestCase):
    def setUp(self):
        self.stack = self.enterContext(contextlib.ExitStack())
        self.folder = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.certificate = certificate(self.folder)
        self.pubsub = PubSub(self.stack, "--tls", str(self.folder))

    def gateway(self, **variables):
        """A gateway that has no credentials but those of `variables`."""
        # Without the file that gcloud writes to the home, and without Google's metadata server.
        own = {"SSL_CERT_FILE": str(self.certificate), "HOME": str(self.folder), "GCE_METADATA_HOST": "127.0.0.1:1"}
        return Gateway(self.stack, self.pubsub, variables=own | variables,
                       PULL_ENDPOINT=f"https://{self.pubsub.address}")

    def pulls(self, server):
        reader = Reader(self.stack, server.port)
        self.pubsub.publish("hello")
        self.assertEqual([data for _, data in reader.until_events(1)], [b"hello"])
        self.pubsub.until_acked(1)
        until("the stream is up", lambda: server.metric(UP) == 1)

    def says(self, server, reason, error, remedy):
        """The log and the metrics name the reason, and no message was delivered."""
        def line():
            entries = [json.loads(line) for line in server.log if '"reason"' in line]
            return [entry for entry in entries if entry["reason"] == reason]
        entry = until(f"the log says {reason}", line)[0]
        self.assertIn(error, entry["error"])
        self.assertIn(remedy, entry["remedy"])
        count = server.metric(f'stream_events_pull_reconnects_total{{reason="{reason}"}}')
        self.assertGreaterEqual(count, 1)
        self.assertEqual(server.metric(UP), 0)
        self.assertEqual(self.pubsub.state()["deliveries"], 0)

    def test_a_key_file_signs_the_tokens(self):
        self.pubsub.allow(public_key=key_file(self.folder / "key.json"))
        self.pulls(self.gateway(GOOGLE_APPLICATION_CREDENTIALS=str(self.folder / "key.json")))
        self.assertEqual(self.pubsub.state()["unauthenticated"], 0)

    def test_the_metadata_server_gives_the_tokens(self):
        self.pubsub.allow(token="good")
        self.pulls(self.gateway(GCE_METADATA_HOST=MetadataServer(self.stack, "good").address))
        self.assertEqual(self.pubsub.state()["unauthenticated"], 0)

    def test_a_refused_token_is_named(self):
        self.pubsub.allow(token="good")
        metadata = MetadataServer(self.stack, "bad")
        server = self.gateway(GCE_METADATA_HOST=metadata.address)
        self.says(server, "credentials", "UNAUTHENTICATED: Request had invalid authentication credentials",
                  "give the gateway a Google service account")
        # A good one is used without a restart of the gateway.
        metadata.token = "good"
        self.pulls(server)

    def test_a_key_file_of_another_account_is_refused(self):
        self.pubsub.allow(public_key=key_file(self.folder / "key.json"))
        key_file(self.folder / "other.json")
        server = self.gateway(GOOGLE_APPLICATION_CREDENTIALS=str(self.folder / "other.json"))
        self.says(server, "credentials", "UNAUTHENTICATED", "GOOGLE_APPLICATION_CREDENTIALS")
        # The file is replaced, as when a Secret is rotated.
        (self.folder / "key.json").replace(self.folder / "other.json")
        self.pulls(server)

    def test_a_gateway_without_credentials_says_so(self):
        self.pubsub.allow(token="good")
        self.says(self.gateway(), "credentials", "computeMetadata", "on GKE with Workload Identity")

    def test_a_key_file_that_is_not_there_is_named(self):
        missing = str(self.folder / "missing.json")
        server = self.gateway(GOOGLE_APPLICATION_CREDENTIALS=missing)
        self.says(server, "credentials", missing, "GOOGLE_APPLICATION_CREDENTIALS")

    def test_an_untrusted_certificate_is_named(self):
        self.pubsub.allow(token="good")
        other = self.folder / "other"
        other.mkdir()
        server = self.gateway(GCE_METADATA_HOST=MetadataServer(self.stack, "good").address,
                              SSL_CERT_FILE=str(certificate(other)))
        self.says(server, "unreachable", "certificate", "certificate")


if __name__ == "__main__":
    unittest.main()
