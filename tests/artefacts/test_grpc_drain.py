"""500 streams of `grpcio` on a gateway that gets SIGTERM: each ends with a record, UNAVAILABLE and a time
to come back."""

import signal
import unittest

import grpc

import gateway
from grpc_clients import Reflected, as_dict

STREAMS = 500
SETTINGS = {"STREAM_EVENTS_LOG_FORMAT": "json", "STREAM_EVENTS_STREAMS_PER_ADDRESS": "0"}


@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
class Drain(unittest.TestCase):
    def test_streams_end_with_a_record_and_a_time_to_come_back(self):
        with gateway.gateway(["dev"], SETTINGS) as (process, url, _):
            reflected = Reflected(url.removeprefix("http://"))
            calls = [reflected.call("Subscribe", {"topics": ["orders"]}, timeout=gateway.PATIENCE)
                     for _ in range(STREAMS)]
            for call in calls:
                self.assertIn("open", as_dict(next(call)))
            process.send_signal(signal.SIGTERM)
            times = set()
            for call in calls:
                records = []
                with self.assertRaises(grpc.RpcError) as ended:
                    for record in call:
                        records.append(as_dict(record))
                self.assertEqual(ended.exception.code(), grpc.StatusCode.UNAVAILABLE)
                self.assertEqual(records[-1]["end"]["reason"], "draining")
                times.add(records[-1]["end"]["retryMs"])
            # The times differ, so that the clients do not come back together.
            self.assertGreater(len(times), STREAMS // 10)
            self.assertEqual(process.wait(gateway.PATIENCE), 0)


if __name__ == "__main__":
    unittest.main()
