"""The fake Pub/Sub does to Google's own client what Pub/Sub does."""

import contextlib
import queue
import unittest

import grpc
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.exceptions import AcknowledgeError, AcknowledgeStatus
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from pull_processes import SUBSCRIPTION, PubSub, until


class Client:
    """Google's client, with the messages that it gets in a queue."""

    def __init__(self, stack, pubsub, messages_max=1000):
        channel = grpc.insecure_channel(pubsub.address,
                                        options=[("grpc.max_receive_message_length", -1)])
        stack.callback(channel.close)
        self.client = pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
        self.messages = queue.Queue()
        control = pubsub_v1.types.FlowControl(max_messages=messages_max, max_duration_per_lease_extension=10)
        self.future = self.client.subscribe(SUBSCRIPTION, self.messages.put, flow_control=control)
        stack.callback(self.end)

    def end(self):
        self.future.cancel()
        with contextlib.suppress(Exception):
            self.future.result(20)

    def next(self, limit=20):
        return self.messages.get(timeout=limit)


class Fake(unittest.TestCase):
    def setUp(self):
        self.stack = self.enterContext(contextlib.ExitStack())

    def start(self, *arguments, messages_max=1000, **subscription):
        pubsub = PubSub(self.stack, *arguments, **subscription)
        return pubsub, Client(self.stack, pubsub, messages_max)

    def test_messages_arrive_whole_and_are_acked(self):
        pubsub, client = self.start()
        pubsub.publish("one", attributes={"a": "b"})
        pubsub.publish("", size=10_000_000)
        message = client.next()
        self.assertEqual((message.data, message.attributes, message.message_id), (b"one", {"a": "b"}, "0"))
        large = client.next()
        self.assertEqual(len(large.data), 10_000_000)
        self.assertEqual(pubsub.state()["leased"], 2)
        large.ack()
        message.ack()
        state = pubsub.until_acked(2)
        self.assertEqual((state["leased"], state["redeliveries"], state["late_acks"]), (0, 0, 0))
        self.assertEqual([number for number, *_ in pubsub.acks()], [1, 0])

    def test_nacks_and_the_end_of_a_lease_deliver_again(self):
        pubsub, client = self.start(lease_max=1.0)
        pubsub.publish("one")
        client.next().nack()
        self.assertEqual(client.next().data, b"one")
        # The client extends it, and the fake does not: it ends after a second.
        again = client.next()
        state = pubsub.state()
        self.assertEqual((state["nacks"], state["expired"], state["deliveries"]), (1, 1, 3))
        again.ack()
        pubsub.until_acked(1)

    def test_a_nack_delivers_what_came_after_it_in_the_key_again(self):
        pubsub, client = self.start(ordered=True)
        pubsub.publish(*"abcdefg", key="k")
        pubsub.publish("other", key="l")
        while (message := client.next()).data != b"d":
            message.ack()
        message.nack()
        order = []
        while order[-1:] != ["g"]:
            message = client.next()
            order.append(message.data.decode())
            message.ack()
        # Before them may come those that the client had already received.
        self.assertEqual(order[-4:], list("defg"))
        pubsub.until_acked(8)

    def test_flow_control_bounds_what_is_delivered(self):
        pubsub, client = self.start(messages_max=10)
        pubsub.generate(100)
        until("ten are leased", lambda: pubsub.state()["leased"] == 10)
        for _ in range(100):
            client.next().ack()
        self.assertEqual(pubsub.until_acked(100)["leased_most"], 10)

    def test_unavailable_streams_are_opened_again(self):
        pubsub, client = self.start()
        pubsub.fault(close_after=0.3)
        until("a stream", lambda: pubsub.state()["streams"])
        for number in range(3):
            opened = pubsub.state()["streams_opened"]
            until("another stream", lambda: pubsub.state()["streams_opened"] > opened)
            pubsub.publish(str(number))
            self.assertEqual(client.next().data, str(number).encode())

    def test_goaway_makes_another_connection(self):
        pubsub, client = self.start("--connection-age", "0.5")
        for number in range(2):
            pubsub.publish(str(number))
            message = client.next()
            message.ack()
            opened = pubsub.state()["streams_opened"]
            until("another stream", lambda: pubsub.state()["streams_opened"] > opened)
        pubsub.until_acked(2)

    def test_denied_and_unknown_are_permanent_errors(self):
        pubsub, client = self.start()
        pubsub.fault(deny=True)
        with self.assertRaises(exceptions.PermissionDenied):
            client.future.result(20)
        pubsub.fault(deny=False)
        pubsub.call("delete")
        with self.assertRaises(exceptions.NotFound):
            Client(self.stack, pubsub).future.result(20)

    def test_acks_are_confirmed_with_exactly_once_delivery(self):
        pubsub, client = self.start(exactly_once=True, lease_max=1.0)
        pubsub.publish("one")
        late = client.next()
        until("the end of its lease", lambda: pubsub.state()["expired"])
        with self.assertRaises(AcknowledgeError) as raised:
            late.ack_with_response().result(20)
        self.assertEqual(raised.exception.error_code, AcknowledgeStatus.INVALID_ACK_ID)
        pubsub.fault(lease_max=60.0)
        # A delivery from before that may end too.
        while not pubsub.state()["acked"]:
            again = client.next()
            pubsub.fault(confirm_later=[again.ack_id])
            with contextlib.suppress(AcknowledgeError):
                self.assertEqual(again.ack_with_response().result(20), AcknowledgeStatus.SUCCESS)
        self.assertGreaterEqual(pubsub.state()["confirmed_failures"], 2)


if __name__ == "__main__":
    unittest.main()
