"""A gateway pulls from the fake Pub/Sub: what arrives, what is acked and when, and how much it holds."""

import contextlib
import http.client
import json
import threading
import time
import unittest
import urllib.request

import gateway
from pull_checks import check
from pull_processes import CAN_PULL, NO_PULL, TOPIC, Gateway, PubSub, Reader, until

MIB = 1 << 20


@unittest.skipUnless(CAN_PULL, NO_PULL)
class Delivery(unittest.TestCase):
    def setUp(self):
        self.stack = self.enterContext(contextlib.ExitStack())

    def start(self, settings=(), **subscription):
        pubsub = PubSub(self.stack, **subscription)
        server = Gateway(self.stack, pubsub, **dict(settings))
        return pubsub, server, Reader(self.stack, server.port)

    def test_a_message_arrives_with_all_that_it_has(self):
        pubsub, server, _ = self.start(ordered=True)
        reader = Reader(self.stack, server.port, query=f"?topic={TOPIC}&format=message")
        pubsub.publish('{"n":1}', key="k", attributes={"event": "made"})
        (_, text), = reader.until_events(1)
        message = json.loads(text)
        self.assertEqual(
            [message[name] for name in ("topic", "message_id", "ordering_key", "attributes", "data")],
            [TOPIC, "0", "k", {"event": "made"}, {"n": 1}])
        self.assertIn("publish_time", message)
        state = pubsub.until_acked(1)
        self.assertEqual((state["deliveries"], state["nacks"], state["leased"]), (1, 0, 0))
        # The messages of a gateway that is killed wait for as long.
        self.assertLessEqual(state["lease"], 15)

    def test_lost_acks_and_short_leases_double_nothing(self):
        pubsub, _, reader = self.start(ordered=True, lease_max=0.5)
        pubsub.fault(ack_loss=0.1, seed=1)
        pubsub.generate(400, keys=40)
        state = pubsub.until_acked(400)
        self.assertGreater(state["redeliveries"], 20)
        reader.until_events(400)
        check(self, pubsub, reader.events, 400, ordered_keys=40)

    def test_push_and_pull_of_a_topic_give_each_event_once(self):
        pubsub, server, reader = self.start()
        ids = pubsub.publish(*(f"{number}|" for number in range(300)))

        def push():
            for number in reversed(ids):
                body = json.dumps({"message": {"data": gateway.base64.b64encode(
                    f"{number}|".encode()).decode(), "messageId": str(number)}})
                request = urllib.request.Request(f"http://127.0.0.1:{server.port}/push/{TOPIC}",
                                                 data=body.encode())
                with urllib.request.urlopen(request, timeout=20) as answer:
                    assert answer.status == 204
        pusher = threading.Thread(target=push)
        pusher.start()
        pubsub.until_acked(300)
        pusher.join(60)
        reader.until_events(300)
        # A double would come before this one.
        pubsub.publish("300|")
        reader.until_events(301)
        check(self, pubsub, reader.events, 301)

    def test_messages_of_10_mb_arrive(self):
        pubsub, server, reader = self.start({"RING_BYTES_TOTAL": "256 MiB"})
        pubsub.generate(8, size=10_000_000)
        pubsub.until_acked(8)
        reader.until_events(8)
        self.assertEqual({len(data) for _, data in reader.events}, {10_000_000})
        check(self, pubsub, reader.events, 8)

    def test_pushes_and_pulls_share_the_memory_for_messages(self):
        pubsub, server, reader = self.start({"PUSH_BYTES_IN_FLIGHT": "16 MiB"})
        pushed, missing = json.dumps({"message": {"data": "A" * 15_000_000, "messageId": "pushed"}}).encode(), 1000
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self.stack.callback(connection.close)
        connection.putrequest("POST", f"/push/{TOPIC}")
        connection.putheader("Content-Length", len(pushed))
        connection.endheaders(pushed[:-missing])
        in_flight = "stream_events_push_bytes_in_flight"
        until("the push has its memory", lambda: server.metric(in_flight) == len(pushed) - missing)
        # Beside the push there is no room for one of these messages.
        pubsub.generate(6, size=2_000_000)
        until("a message came", lambda: pubsub.state()["leased"])
        time.sleep(2)
        state = pubsub.state()
        self.assertEqual((state["acked"], state["nacks"], len(reader.events)), (0, 0, 0), state)
        self.assertEqual(server.metric(in_flight), len(pushed) - missing)
        connection.send(pushed[-missing:])
        self.assertEqual(connection.getresponse().status, 204)
        state = pubsub.until_acked(6)
        self.assertEqual((state["redeliveries"], state["nacks"]), (0, 0), state)
        self.assertEqual([len(data) for _, data in reader.until_events(7)], [15_000_000 // 4 * 3] + 6 * [2_000_000])
        check(self, pubsub, reader.events[1:], 6)

    def test_poison_is_acked_or_given_back_as_the_flag_says(self):
        for flag, done in (("ack", "acked"), ("nack", "nacks")):
            with self.subTest(flag):
                pubsub, server, reader = self.start({"POISON": flag})
                # More than any message of Pub/Sub's.
                pubsub.publish("0|", size=17_000_000)
                until("the flag decides", lambda: pubsub.state()[done] >= 1)
                self.assertGreaterEqual(server.metric("stream_events_poison_total"), 1)
                pubsub.publish("1|")
                reader.until_events(1)
                self.assertEqual([data for _, data in reader.events], [b"1|"])
                state = pubsub.until_acked(2 if flag == "ack" else 1)
                self.assertEqual((state["nacks"] > 0, state["acked"]), (flag == "nack", 2 - (flag == "nack")))

    def test_a_backlog_of_1_gb_takes_bounded_memory(self):
        ring, sent = 32, 16
        pubsub, server, _ = self.start({"RING_BYTES": f"{ring} MiB"})
        before, _ = server.memory()
        pubsub.generate(1000, size=1_000_000)
        state = pubsub.until_acked(1000)
        _, most = server.memory()
        # The ring, and what Pub/Sub may send before it gets acks, four times: as gRPC's bytes, as a message,
        # as an event, and as memory that the allocator has not given back.
        bound = before + (ring + 4 * sent) * MIB
        print(f"{before // MIB} MiB before, {most // MIB} MiB at most, bound {bound // MIB} MiB", flush=True)
        self.assertLess(most, bound)
        self.assertLessEqual(state["bytes_most"], sent * MIB)


if __name__ == "__main__":
    unittest.main()
