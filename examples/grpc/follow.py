#!/usr/bin/env python3
"""Follows a topic over gRPC, with reflection only: without the proto file and without generated code.

    pip install grpcio grpcio-reflection
    python3 examples/grpc/follow.py [HOST:PORT] [TOPIC] [--count N]

Prints a line for each event: its id, its type and its data as a JSON string, with tabs between.
Exits after N events, or never. HOST:PORT is 127.0.0.1:8080 if it is left out, and TOPIC is all topics.
TOKEN in the environment is the reader's token.
"""

import argparse
import json
import os
import sys
import time

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "stream_events.v1.StreamEvents"
# After these, a repeated call may succeed. The last three are what a client makes of a call that was reset, by
# the gateway because the client read too slowly, or by a proxy that has lost its gateway. A client whose token
# has expired gets UNAUTHENTICATED.
TEMPORARY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED,
             grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
# The gateway sends a record at least every 15 s (--keep-alive): a connection that is silent for longer is
# found dead by these pings. Messages can be as large as an event, so that they have no limit here.
OPTIONS = [("grpc.keepalive_time_ms", 30_000), ("grpc.max_receive_message_length", -1)]


def subscribe_method(channel):
    """Asks the gateway for the method Subscribe. Returns it, and the class of its request."""
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName(SERVICE).methods_by_name["Subscribe"]
    request, record = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
    path = f"/{SERVICE}/Subscribe"
    return channel.unary_stream(path, request.SerializeToString, record.FromString), request


def wait_of(err):
    """Returns the seconds after which to call again."""
    trailers = dict(err.trailing_metadata() or ())
    return int(trailers.get("grpc-retry-pushback-ms", 3_000)) / 1_000


def follow(target, topics, metadata):
    """Yields all events, over as many calls as it takes."""
    last_event_id = ""
    while True:
        try:
            with grpc.insecure_channel(target, options=OPTIONS) as channel:
                subscribe, request = subscribe_method(channel)
                asked = request(topics=topics, last_event_id=last_event_id)
                for record in subscribe(asked, metadata=metadata):
                    kind = record.WhichOneof("record")
                    if kind == "gap":
                        print(f"events are missing: {record.gap.reason}", file=sys.stderr)
                    if kind in ("open", "event", "checkpoint"):
                        last_event_id = getattr(record, kind).id
                    if kind == "event":
                        yield record.event
        except grpc.RpcError as err:
            if err.code() not in TEMPORARY:
                raise
            time.sleep(wait_of(err))


def main():
    parser = argparse.ArgumentParser(description="Follows a topic over gRPC.")
    parser.add_argument("target", nargs="?", default="127.0.0.1:8080", metavar="HOST:PORT")
    parser.add_argument("topic", nargs="?")
    parser.add_argument("--count", type=int)
    arguments = parser.parse_args()
    token = os.environ.get("TOKEN")
    metadata = [("authorization", f"Bearer {token}")] if token else []
    topics = [arguments.topic] if arguments.topic else []
    for number, event in enumerate(follow(arguments.target, topics, metadata), 1):
        kind = event.attributes.get("event", "message")
        data = json.dumps(event.data.decode(errors="replace"), ensure_ascii=False)
        print(event.id, kind, data, sep="\t", flush=True)
        if number == arguments.count:
            return


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as err:
        sys.exit(f"{err.code().name}: {err.details()}")
    except KeyboardInterrupt:
        pass
