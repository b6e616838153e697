#!/usr/bin/env python3
"""Follows a stream of events. Python 3.9 or newer, standard library only.

    python3 examples/python.py [URL] [--count N]

Prints a line for each event: its id, its type and its data as a JSON string, with tabs between.
Exits after N events, or never. URL is http://127.0.0.1:8080/events if it is left out.
"""

import argparse
import http.client
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request

# The gateway writes something at least every 15 s (--keep-alive), so a longer silence is a connection
# that died without a word, as after a laptop's sleep or a NAT's time-out.
SILENCE_MAX_S = 60
# The wait before the next try doubles from the server's `retry` up to this while tries fail.
WAIT_MAX_S = 30

LINE_END = re.compile(rb"\r\n|\n|\r")


class EventStreamParser:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation"""

    def __init__(self):
        # What survives a connection: where to go on, and how long to wait before.
        self.last_event_id = ""
        self.retry_s = 3.0
        self.begin()

    def begin(self):
        """A connection begins. What an incomplete block left is dropped: the server sends all of it
        again, since its id does not count before its end."""
        self._line = bytearray()
        self._first_line = True
        self._after_cr = False
        self._id = self.last_event_id
        self._type = ""
        self._data = []

    def feed(self, chunk):
        """Yields the events that end in this chunk, as (id, type, data)."""
        # A line ends with CR, LF or CRLF. A CR ends it at once, without a look at what follows, which
        # may not come for long; so an LF that comes in the next chunk belongs to that line end.
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        # Not str.splitlines(), which also splits at characters that are part of a line here.
        *lines, rest = LINE_END.split(chunk)
        for line in lines:
            self._line += line
            # Only whole lines are decoded: a character may be split between two chunks.
            whole = self._line.decode("utf-8", "replace")
            self._line.clear()
            if self._first_line:
                self._first_line = False
                whole = whole.removeprefix("\ufeff")  # A byte order mark.
            if whole:
                self._field(whole)
            else:
                yield from self._end_of_block()
        self._line += rest

    def _field(self, line):
        # A comment is a line with an empty name.
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")  # One space; a second one is data.
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            self.retry_s = int(value) / 1000

    def _end_of_block(self):
        # A block without data is no event, but its id counts: the gateway moves us past events that
        # are not for us. An empty event has data: one empty line.
        self.last_event_id = self._id
        event = (self._id, self._type or "message", "\n".join(self._data))
        is_event = bool(self._data)
        self._type, self._data = "", []
        if is_event:
            yield event


class Refused(Exception):
    """A refusal that will be the same at the next try."""


def read(url, parser):
    """The events of one connection."""
    # With this Accept the gateway turns us away, when it must, with a stream that says when to retry.
    request = urllib.request.Request(url, headers={"Accept": "text/event-stream"})
    if parser.last_event_id:
        request.add_header("Last-Event-ID", parser.last_event_id)
    try:
        response = urllib.request.urlopen(request, timeout=SILENCE_MAX_S)
    except urllib.error.HTTPError as error:
        # These pass: a proxy in front of the gateway, for one, while the gateway restarts.
        if error.code >= 500 or error.code in (408, 429):
            raise
        problem = error.read().decode("utf-8", "replace")
        raise Refused(f"{error.code} {problem}") from error
    with response:
        content_type = response.headers.get("Content-Type", "nothing")
        if response.status != 200 or not content_type.startswith("text/event-stream"):
            # No refusal: a head that was cut looks whole to http.client, with headers missing.
            problem = f"not an event stream: {response.status} {content_type}"
            raise http.client.HTTPException(problem)
        parser.begin()
        # read1() gives what has come; read() would wait until it has all that was asked for.
        while chunk := response.read1(64 * 1024):
            yield from parser.feed(chunk)


def follow(url):
    """All events from now on, over as many connections as it takes."""
    parser = EventStreamParser()
    failures = 0
    while True:
        try:
            for event in read(url, parser):
                failures = 0
                yield event
        except (OSError, http.client.HTTPException) as error:
            print(f"connection lost: {error}", file=sys.stderr)
        wait_s = min(parser.retry_s * 2 ** min(failures, 16), WAIT_MAX_S)
        time.sleep(max(wait_s, parser.retry_s))
        failures += 1


def main():
    arguments = argparse.ArgumentParser(description="Follows a stream of events.")
    arguments.add_argument("url", nargs="?", default="http://127.0.0.1:8080/events")
    arguments.add_argument("--count", type=int, help="exit after so many events")
    given = arguments.parse_args()
    if given.count is not None and given.count < 1:
        arguments.error("--count wants a number from 1 up")
    if not given.url.lower().startswith(("http://", "https://")):
        arguments.error("the URL wants http:// or https:// in front")
    left = given.count
    sys.stdout.reconfigure(encoding="utf-8")

    for event_id, event_type, data in follow(given.url):
        if event_type == "stream-gap":
            # Events are gone before we could read them. What was built from events is no longer right:
            # an application loads its state from where it is kept, then goes on with what follows.
            print(f"events were missed: {data}", file=sys.stderr)
        # The gateway's own. New ones may come: ignore those you do not know.
        if event_type.startswith("stream-"):
            continue
        # An application that keeps its state over its own restarts stores the id together with what
        # it did for the event, and begins with it: URL?last_event_id=ID.
        print(event_id, event_type, json.dumps(data, ensure_ascii=False), sep="\t", flush=True)
        if left is not None:
            left -= 1
            if left == 0:
                return


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(str(refused))
    except BrokenPipeError:
        # Whoever read our lines is gone. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)
