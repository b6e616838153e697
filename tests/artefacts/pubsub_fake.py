"""A Pub/Sub service for tests: StreamingPull, Acknowledge and ModifyAckDeadline over gRPC.

    python pubsub_fake.py [--port 0] [--connection-age SECONDS] [--tls FOLDER]

It prints {"port": N}, then reads commands from its standard input, one JSON object a line, and answers each
with one line. It ends with its standard input. Commands are the methods of `Control`:

    {"do": "create", "subscription": "projects/p/subscriptions/s", "ordered": true}
    {"do": "publish", "subscription": "projects/p/subscriptions/s", "messages": [{"text": "one", "key": "k"}]}
    {"do": "state", "subscription": "projects/p/subscriptions/s"}
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import random
import sys
import time

import grpc
from google.protobuf import empty_pb2
from google.pubsub_v1 import types
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from pubsub_state import Stream, Subscription
from pubsub_tokens import UNAUTHENTICATED, Tokens

PullRequest, PullResponse = types.StreamingPullRequest.pb(), types.StreamingPullResponse.pb()
AckRequest, ModifyRequest = types.AcknowledgeRequest.pb(), types.ModifyAckDeadlineRequest.pb()
# Google's words.
DENIED = "User not authorized to perform this action."
GONE = "The service was unable to fulfill your request. Please try again. [code=8a75]"
# Seconds between looks at leases.
TICK = 0.05


class Service:
    """The calls. Faults are for all subscriptions."""

    def __init__(self):
        self.subscriptions = {}
        # Set when there may be something to deliver, or a fault begins.
        self.changed = asyncio.Event()
        # Seconds after which a stream ends with UNAVAILABLE. 0: never.
        self.close_after = 0.0
        self.is_denied = False
        # Acks and extensions are answered with UNAVAILABLE, and do not count.
        self.has_no_acks = False
        # Share of the acks that are lost, though their call succeeds: Pub/Sub promises nothing.
        self.ack_loss, self.random = 0.0, random.Random(0)
        # Ids of a call that fail in exactly-once delivery for now, at the first attempt.
        self.confirm_later = set()
        # Whether an idle stream says nothing at all, not even the headers of its answer.
        self.is_silent = True
        # Who may call. None: anyone.
        self.tokens = None

    def notify(self):
        self.changed.set()
        self.changed = asyncio.Event()

    def _count(self, name, what):
        with contextlib.suppress(KeyError):
            self.subscriptions[name].counts[what] += 1

    async def _subscription(self, name, context):
        if self.tokens and not self.tokens.is_good(context.invocation_metadata()):
            self._count(name, "unauthenticated")
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED)
        if self.is_denied:
            self._count(name, "denied")
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, DENIED)
        if name not in self.subscriptions:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Resource not found (resource={name}).")
        return self.subscriptions[name]

    async def streaming_pull(self, requests, context):
        first = await anext(aiter(requests))
        subscription = await self._subscription(first.subscription, context)
        lease = first.stream_ack_deadline_seconds
        if not 10 <= lease <= 600:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"stream_ack_deadline_seconds: {lease}")
        stream = Stream(lease, first.max_outstanding_messages, first.max_outstanding_bytes, first.client_id)
        subscription.lease = lease
        subscription.counts["streams"] += 1
        subscription.counts["streams_opened"] += 1
        reading = asyncio.create_task(self._read(requests, subscription))
        started = time.monotonic()
        try:
            if not self.is_silent:
                await context.send_initial_metadata(())
            while True:
                if self.is_denied:
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, DENIED)
                left = started + self.close_after - time.monotonic() if self.close_after else None
                if left is not None and left <= 0:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, GONE)
                changed = self.changed
                taken = subscription.take(stream)
                if taken:
                    yield self._response(subscription, taken)
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await changed.wait()
        finally:
            # Leases outlive their stream.
            subscription.counts["streams"] -= 1
            reading.cancel()

    async def _read(self, requests, subscription):
        """What else a client says on a stream: acks and extensions, as older clients send them."""
        async for request in requests:
            for ack_id in request.ack_ids:
                subscription.ack(ack_id)
            for ack_id, seconds in zip(request.modify_deadline_ack_ids, request.modify_deadline_seconds):
                subscription.modify(ack_id, seconds)
            self.notify()

    def _response(self, subscription, taken):
        response = PullResponse()
        response.subscription_properties.exactly_once_delivery_enabled = subscription.exactly_once
        response.subscription_properties.message_ordering_enabled = subscription.ordered
        for message in taken:
            received = response.received_messages.add(ack_id=f"{message.id}:{message.attempt}")
            sent = received.message
            sent.data, sent.message_id, sent.ordering_key = message.data(), str(message.id), message.key
            sent.attributes.update(message.attributes)
            sent.publish_time.FromMilliseconds(int(message.published * 1000))
        return response

    async def acknowledge(self, request, context):
        return await self._settle(request, context, self._ack)

    async def modify_ack_deadline(self, request, context):
        seconds = request.ack_deadline_seconds
        return await self._settle(request, context, lambda subscription, ack_id: subscription.modify(
            ack_id, seconds))

    def _ack(self, subscription, ack_id):
        if self.random.random() < self.ack_loss:
            subscription.counts["lost_acks"] += 1
            return True
        return subscription.ack(ack_id)

    async def _settle(self, request, context, settle):
        subscription = await self._subscription(request.subscription, context)
        if self.has_no_acks:
            await context.abort(grpc.StatusCode.UNAVAILABLE, GONE)
        failures = {}
        for ack_id in request.ack_ids:
            if subscription.exactly_once and ack_id in self.confirm_later:
                self.confirm_later.remove(ack_id)
                failures[ack_id] = "TRANSIENT_FAILURE_UNORDERED_ACK_ID"
            elif not settle(subscription, ack_id) and subscription.exactly_once:
                failures[ack_id] = "PERMANENT_FAILURE_INVALID_ACK_ID"
        self.notify()
        if failures:
            subscription.counts["confirmed_failures"] += len(failures)
            info = error_details_pb2.ErrorInfo(reason="EXACTLY_ONCE_ACKID_FAILURE",
                                               domain="pubsub.googleapis.com", metadata=failures)
            status = status_pb2.Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0],
                                       message="Some acknowledgement ids are invalid.")
            status.details.add().Pack(info)
            await context.abort_with_status(rpc_status.to_status(status))
        return empty_pb2.Empty()

    async def expire(self):
        """Ends leases for as long as the service runs."""
        while True:
            await asyncio.sleep(TICK)
            # A list: each one has to be asked.
            if any([subscription.expire() for subscription in self.subscriptions.values()]):
                self.notify()

    def handler(self):
        def unary(call, request):
            return grpc.unary_unary_rpc_method_handler(
                call, request_deserializer=request.FromString,
                response_serializer=empty_pb2.Empty.SerializeToString)
        return grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", {
            "StreamingPull": grpc.stream_stream_rpc_method_handler(
                self.streaming_pull, request_deserializer=PullRequest.FromString,
                response_serializer=PullResponse.SerializeToString),
            "Acknowledge": unary(self.acknowledge, AckRequest),
            "ModifyAckDeadline": unary(self.modify_ack_deadline, ModifyRequest)})


class Control:
    """The commands of a test."""

    def __init__(self, service):
        self.service = service

    def create(self, subscription, **options):
        self.service.subscriptions[subscription] = Subscription(**options)

    def delete(self, subscription):
        del self.service.subscriptions[subscription]

    def allow(self, **who):
        """Refuses all calls but those of the holder of a token or of a key."""
        self.service.tokens = Tokens(**who)

    def publish(self, subscription, messages):
        """Publishes messages, each {"text", "size", "key", "attributes"}. Returns their ids."""
        return [self.service.subscriptions[subscription].publish(**message) for message in messages]

    def generate(self, subscription, count, size=0, keys=0, first=0):
        """Publishes messages whose text is their number, with as many ordering keys."""
        for number in range(first, first + count):
            key = f"key-{number % keys}" if keys else ""
            self.service.subscriptions[subscription].publish(f"{number}|", size, key)

    def fault(self, deny=None, close_after=None, no_acks=None, ack_loss=None, seed=None, lease_max=None,
              confirm_later=None, silent=None):
        """Begins or ends faults: those that are named."""
        service = self.service
        if deny is not None:
            service.is_denied = deny
        if close_after is not None:
            service.close_after = close_after
        if no_acks is not None:
            service.has_no_acks = no_acks
        if ack_loss is not None:
            service.ack_loss = ack_loss
        if seed is not None:
            service.random = random.Random(seed)
        if lease_max is not None:
            for subscription in service.subscriptions.values():
                subscription.lease_max = lease_max
        if confirm_later is not None:
            service.confirm_later = set(confirm_later)
        if silent is not None:
            service.is_silent = silent

    def state(self, subscription):
        return self.service.subscriptions[subscription].state()

    def acks(self, subscription, first=0):
        """(message's id, Unix time in ms, whether it counted) of each ack from `first` on, in order."""
        acks = self.service.subscriptions[subscription].acks
        return [(number, int(at * 1000), counted) for number, at, counted in acks[first:]]

    def run(self, line):
        command = json.loads(line)
        answer = getattr(self, command.pop("do"))(**command)
        self.service.notify()
        return answer


async def serve(arguments):
    service = Service()
    options = [("grpc.so_reuseport", 0)]
    if arguments.connection_age:
        # A GOAWAY, and the end of the connection a second later.
        options += [("grpc.max_connection_age_ms", int(arguments.connection_age * 1000)),
                    ("grpc.max_connection_age_grace_ms", 1000)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((service.handler(),))
    address = f"127.0.0.1:{arguments.port}"
    if arguments.tls:
        pair = [(arguments.tls / name).read_bytes() for name in ("tls.key", "tls.crt")]
        port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port(address)
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    expiry = asyncio.create_task(service.expire())
    control = Control(service)
    lines = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        print(json.dumps(control.run(line)), flush=True)
    # No call is ended first: a test that is over needs no answers.
    expiry.cancel()
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--connection-age", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--tls", type=pathlib.Path, metavar="FOLDER", help="with tls.key and tls.crt")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
