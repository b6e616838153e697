"""Gateways that share a Redis and a subscription, while Redis and they are killed."""

import contextlib
import random
import time
import unittest

import gateway
from ports import free_port
from pubsub_state import KEY_BATCH
from pull_checks import check, problems
from pull_processes import CAN_PULL, NO_PULL, Gateway, PubSub, Reader, redis_server, seed, until

KEYS = 40
# Seconds for which gateways are killed.
KILLING = 4
# Seconds of a lease.
LEASE = 10


@unittest.skipUnless(CAN_PULL, NO_PULL)
@unittest.skipUnless(gateway.REDIS, gateway.NO_REDIS)
class Replicas(unittest.TestCase):
    def setUp(self):
        self.stack = self.enterContext(contextlib.ExitStack())
        self.redis = self.stack.enter_context(redis_server())

    def gateway(self, pubsub, **settings):
        return Gateway(self.stack, pubsub, BACKPLANE=self.redis.url, RING_EVENTS="100000", **settings)

    def test_nothing_is_acked_while_redis_does_not_answer(self):
        pubsub = PubSub(self.stack, ordered=True)
        server = self.gateway(pubsub, PULL_MESSAGES="50")
        reader = Reader(self.stack, server.port)
        pubsub.generate(20, keys=KEYS)
        pubsub.until_acked(20)
        self.redis.stop()
        pubsub.generate(500, first=20, keys=KEYS)
        until("messages are leased", lambda: pubsub.state()["leased"] > 10)
        time.sleep(2)
        state = pubsub.state()
        # "Stop taking": none is acked, few are held, and none is given back in a loop.
        self.assertEqual((state["acked"], state["nacks"]), (20, 0))
        self.assertLessEqual(state["leased_most"], 50)
        self.redis.resume()
        pubsub.until_acked(520)
        reader.until_events(520)
        check(self, pubsub, reader.events, 520, ordered_keys=KEYS)

    def test_nothing_is_acked_and_lost_while_redis_is_killed(self):
        number = seed("nothing_is_acked_and_lost_while_redis_is_killed")
        chance = random.Random(number)
        pubsub = PubSub(self.stack, ordered=True)
        server = self.gateway(pubsub)
        reader = Reader(self.stack, server.port)
        count = 0
        for _ in range(3):
            pubsub.generate(200, first=count, keys=KEYS)
            time.sleep(chance.uniform(0, 0.1))
            self.redis.kill()
            # The gateway receives some of these, and cannot store them while Redis is down.
            pubsub.generate(200, first=count + 200, keys=KEYS)
            count += 400
            time.sleep(chance.uniform(0.3, 1))
            self.redis.start()
        pubsub.until_acked(count)
        check(self, pubsub, self.redis.events(), count, ordered_keys=KEYS)
        # The reader is told that the log was restarted, and is sent nothing twice or out of order.
        missing = count - len(reader.events)
        wrong = [what for what in problems([], reader.events, count, KEYS) if "never" not in what]
        self.assertEqual(wrong, [])
        self.assertTrue(reader.gaps or not missing)
        # Messages are held while Redis is away, and not given back in a loop.
        self.assertLess(pubsub.state()["deliveries"], 2 * count)

    def kill_gateways(self, replicas):
        number = seed(f"{replicas} replicas")
        chance = random.Random(number)
        # Leases of 2 s and not of 10 s: the messages of a killed gateway come back sooner.
        pubsub = PubSub(self.stack, ordered=True, lease_max=2.0)
        pubsub.fault(ack_loss=0.01, seed=number)
        ports = [free_port() for _ in range(replicas)]
        gateways = [self.gateway(pubsub, port=port) for port in ports]
        readers = [Reader(self.stack, *ports[at:], *ports[:at]) for at in range(2)]
        count, end, killed, next_kill = 0, time.monotonic() + KILLING, 0, 0
        while time.monotonic() < end:
            pubsub.generate(chance.randrange(30), first=count, keys=KEYS)
            count = pubsub.state()["published"]
            time.sleep(chance.uniform(0, 0.1))
            if time.monotonic() > next_kill:
                at = chance.randrange(replicas)
                gateways[at].kill()
                gateways[at] = self.gateway(pubsub, port=ports[at])
                killed += 1
                next_kill = time.monotonic() + chance.uniform(0.2, 1.2)
        state = pubsub.until_acked(count)
        print(f"{count} messages, {killed} kills, {state['redeliveries']} redeliveries", flush=True)
        for reader in readers:
            check(self, pubsub, reader.until_events(count), count, ordered_keys=KEYS)
            self.assertEqual(reader.gaps, [])

    def test_two_gateways_that_are_killed_lose_and_double_nothing(self):
        self.kill_gateways(2)

    def test_three_gateways_that_are_killed_lose_and_double_nothing(self):
        self.kill_gateways(3)

    def hold(self, pubsub, server):
        """Lets the gateway hold one batch of each key, of which it can store none."""
        self.redis.stop()
        held = KEYS * KEY_BATCH
        pubsub.generate(1000, first=100, keys=KEYS)
        until("messages are held", lambda: pubsub.state()["leased"] == held)
        # Each has 8 bytes at least.
        until("the gateway has them", lambda: server.metric("stream_events_push_bytes_in_flight") >= 8 * held)

    def test_the_messages_of_a_killed_gateway_come_back_after_its_leases(self):
        # Without `lease_max`, leases last as long as the gateway asks.
        pubsub = PubSub(self.stack, ordered=True)
        killed = self.gateway(pubsub)
        pubsub.generate(100, keys=KEYS)
        pubsub.until_acked(100)
        self.hold(pubsub, killed)
        # Longer than a lease: the gateway extends the leases of messages that it holds.
        time.sleep(LEASE + 1)
        self.assertEqual(pubsub.state()["expired"], 0)
        killed.kill()
        at = time.monotonic()
        self.redis.resume()
        self.gateway(pubsub)
        state = pubsub.until_acked(1100)
        waited = time.monotonic() - at
        print(f"the other gateway had them after {waited:.1f} s", flush=True)
        self.assertLess(waited, LEASE + 5)
        # At least one lease of each key expires. The later messages of its key come again with it.
        self.assertGreaterEqual(state["expired"], KEYS)
        check(self, pubsub, self.redis.events(), 1100, ordered_keys=KEYS)

    def test_a_gateway_that_leaves_gives_back_what_it_has_not_stored(self):
        pubsub = PubSub(self.stack, ordered=True)
        server = self.gateway(pubsub, DRAIN_TIMEOUT="8s")
        # Another one, which does not pull: the gateway that leaves has no streams to wait for.
        reader = Reader(self.stack, self.gateway(pubsub, PULL="").port)
        pubsub.generate(100, keys=KEYS)
        pubsub.until_acked(100)
        self.hold(pubsub, server)
        self.redis.resume()
        self.assertEqual(server.terminate(), 0)
        # No lease of 10 s is left to wait for: what was not acked is given back.
        state = pubsub.state()
        self.assertEqual(state["leased"], 0, state)
        self.assertGreater(state["nacks"], 0, state)
        # What it was storing is acked: the first one of each key.
        self.assertGreaterEqual(state["acked"], 100 + KEYS, state)
        self.gateway(pubsub)
        pubsub.until_acked(1100)
        check(self, pubsub, reader.until_events(1100), 1100, ordered_keys=KEYS)
        self.assertEqual(reader.gaps, [])
        self.assertEqual(pubsub.state()["expired"], 0)

    def test_a_gateway_that_leaves_while_redis_hangs_gives_back_all(self):
        pubsub = PubSub(self.stack, ordered=True)
        server = self.gateway(pubsub, DRAIN_TIMEOUT="2s")
        pubsub.generate(100, keys=KEYS)
        pubsub.until_acked(100)
        self.hold(pubsub, server)
        self.assertEqual(server.terminate(), 0)
        state = pubsub.state()
        self.redis.resume()
        self.assertEqual((state["leased"], state["acked"]), (0, 100), state)


if __name__ == "__main__":
    unittest.main()
