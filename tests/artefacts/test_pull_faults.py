"""A gateway that pulls while Pub/Sub fails: closed, refused and silent streams, GOAWAY, late confirmations."""

import contextlib
import time
import unittest

import gateway
from pull_checks import check
from pull_processes import CAN_PULL, NO_PULL, SUBSCRIPTION, Gateway, PubSub, Reader, until

UP = f'stream_events_pull_up{{subscription="{SUBSCRIPTION}"}}'
RECONNECTS = "stream_events_pull_reconnects_total"


@unittest.skipUnless(CAN_PULL, NO_PULL)
class Faults(unittest.TestCase):
    def setUp(self):
        self.stack = self.enterContext(contextlib.ExitStack())

    def start(self, *arguments, **subscription):
        pubsub = PubSub(self.stack, *arguments, **subscription)
        server = Gateway(self.stack, pubsub)
        return pubsub, server, Reader(self.stack, server.port)

    def publish_while(self, pubsub, is_over, keys):
        """Publishes a message every 5 ms until it is over. Returns their number."""
        count, end = 0, time.monotonic() + gateway.PATIENCE
        while not is_over():
            self.assertLess(time.monotonic(), end, pubsub.state())
            pubsub.generate(1, keys=keys, first=count)
            count += 1
            time.sleep(0.005)
        return count

    def test_streams_that_close_every_2_s_lose_and_double_nothing(self):
        pubsub, server, reader = self.start(ordered=True)
        pubsub.fault(close_after=2.0)
        count = self.publish_while(pubsub, lambda: pubsub.state()["streams_opened"] >= 3, keys=5)
        pubsub.until_acked(count)
        reader.until_events(count)
        check(self, pubsub, reader.events, count, ordered_keys=5)
        # Leases survive the stream, so nothing has to be delivered again.
        self.assertLess(pubsub.state()["redeliveries"], count / 2)

    def test_an_idle_stream_that_pub_sub_closes_now_and_then_stays_up(self):
        pubsub, server, reader = self.start()
        pubsub.publish("0|")
        reader.until_events(1)
        until("the stream is up", lambda: server.metric(UP) == 1)
        pubsub.fault(close_after=6.0)
        opened, end = pubsub.state()["streams_opened"], time.monotonic() + gateway.PATIENCE
        while pubsub.state()["streams_opened"] < opened + 3:
            self.assertLess(time.monotonic(), end, pubsub.state())
            self.assertEqual((server.metric(UP), server.metric(RECONNECTS)), (1, None))
            time.sleep(0.1)
        pubsub.publish("1|")
        check(self, pubsub, reader.until_events(2), 2)

    def test_a_frozen_pub_sub_is_noticed_within_about_a_minute(self):
        pubsub, server, reader = self.start()
        pubsub.publish("0|")
        reader.until_events(1)
        until("the stream is up", lambda: server.metric(UP) == 1)
        pubsub.freeze()
        frozen = time.monotonic()
        until("the stream is down", lambda: server.metric(UP) == 0, limit=75)
        print(f"noticed after {time.monotonic() - frozen:.1f} s", flush=True)
        reasons = [server.metric(f'{RECONNECTS}{{reason="{reason}"}}') for reason in ("silent", "unreachable")]
        self.assertEqual(reasons[0], 1)
        self.assertGreaterEqual(reasons[1], 1)
        self.assertTrue(any("check --pull-endpoint" in line for line in server.log), server.log[-5:])
        pubsub.resume()
        until("the stream is up again", lambda: server.metric(UP) == 1)
        pubsub.publish("1|")
        check(self, pubsub, reader.until_events(2), 2)

    def test_messages_whose_acks_are_refused_come_again_and_are_stored_once(self):
        pubsub, server, reader = self.start(ordered=True, lease_max=1.0)
        pubsub.fault(no_acks=True)
        # One batch of each key, which is all that Pub/Sub delivers without acks.
        pubsub.generate(20, keys=4)
        reader.until_events(20)
        until("they come again", lambda: pubsub.state()["redeliveries"] >= 20)
        self.assertEqual(pubsub.state()["acked"], 0)
        pubsub.fault(no_acks=False)
        pubsub.until_acked(20)
        # A second event of a message would come before this event.
        pubsub.generate(1, keys=4, first=20)
        check(self, pubsub, reader.until_events(21), 21, ordered_keys=4)

    def test_goaway_loses_and_doubles_nothing(self):
        pubsub, server, reader = self.start("--connection-age", "1", ordered=True)
        count = self.publish_while(pubsub, lambda: pubsub.state()["streams_opened"] >= 3, keys=5)
        pubsub.until_acked(count)
        reader.until_events(count)
        check(self, pubsub, reader.events, count, ordered_keys=5)

    def test_a_denied_subscription_is_tried_again_and_shows_in_metrics(self):
        pubsub, server, reader = self.start()
        pubsub.publish("0|")
        reader.until_events(1)
        until("the stream is up", lambda: server.metric(UP) == 1)
        pubsub.fault(deny=True)
        until("the stream is down", lambda: server.metric(UP) == 0)
        denied = time.monotonic()
        pubsub.publish("1|")
        while time.monotonic() < denied + 5:
            self.assertEqual(server.metric(UP), 0)
            # Readers are still served.
            self.assertEqual(server.status("/readyz"), 200)
            time.sleep(0.1)
        # Not in a loop without a pause, and not given up.
        attempts = pubsub.state()["denied"]
        self.assertTrue(3 <= attempts <= 40, f"{attempts} attempts in 5 s")
        reconnects = server.metric(RECONNECTS)
        self.assertGreaterEqual(reconnects, 3)
        said = [line for line in server.log if "roles/pubsub.subscriber" in line]
        self.assertTrue(said, server.log[-5:])
        pubsub.fault(deny=False)
        reader.until_events(2, limit=15)
        until("the stream is up again", lambda: server.metric(UP) == 1)
        check(self, pubsub, reader.events, 2)

    def test_a_subscription_that_is_not_there_yet_is_found_later(self):
        pubsub = PubSub(self.stack)
        pubsub.call("delete")
        server = Gateway(self.stack, pubsub)
        until("it says why", lambda: any("not-found" in line.lower() or "Resource not found" in line
                                         for line in server.log))
        reader = Reader(self.stack, server.port)
        self.assertEqual(server.status("/readyz"), 503)
        pubsub.call("create")
        pubsub.publish("0|")
        reader.until_events(1, limit=20)
        server.until_ready()

    def test_a_silent_stream_makes_the_gateway_ready(self):
        # No header before the first message.
        _, server, _ = self.start()
        started = time.monotonic()
        server.until_ready()
        self.assertLess(time.monotonic() - started, 8)
        self.assertEqual(server.metric(UP), 1)

    def test_a_pub_sub_that_cannot_be_reached_is_tried_again(self):
        pubsub, server, reader = self.start()
        pubsub.publish("0|")
        reader.until_events(1)
        until("the stream is up", lambda: server.metric(UP) == 1)
        port = int(pubsub.address.rsplit(":")[-1])
        pubsub.process.kill()
        pubsub.process.wait()
        again = PubSub(self.stack, port=port)
        # The fake begins its ids again, and these would be duplicates.
        again.generate(10, first=0)
        pubsub = again
        pubsub.until_acked(10, limit=30)
        reader.until_events(10)

    def test_exactly_once_delivery_confirms_each_ack(self):
        pubsub, server, reader = self.start(exactly_once=True, ordered=True)
        pubsub.fault(confirm_later=[f"{number}:1" for number in range(0, 60, 3)])
        pubsub.generate(60, keys=3)
        pubsub.until_acked(60)
        reader.until_events(60)
        check(self, pubsub, reader.events, 60, ordered_keys=3)
        confirmed = 'stream_events_pull_confirmed_acks_total{result="confirmed"}'
        until("the acks are confirmed", lambda: server.metric(confirmed) == 60)
        # Leases that end early: acks fail, and messages come again.
        pubsub.fault(lease_max=0.05)
        pubsub.generate(60, keys=3, first=60)
        time.sleep(1)
        pubsub.fault(lease_max=60.0)
        pubsub.until_acked(120)
        reader.until_events(120)
        check(self, pubsub, reader.events, 120, ordered_keys=3)


if __name__ == "__main__":
    unittest.main()
