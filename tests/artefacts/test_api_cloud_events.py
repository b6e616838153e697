"""CloudEvents of the SDK for Python (cloudevents.io) arrive as they were sent."""

import json
import unittest
import urllib.request

from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

import gateway

# What the gateway adds.
ADDED = {"lasteventid"}
SAMPLES = [
    ("application/json", {"message": {"text": "hi"}}),
    ("application/json", {"list": ["é", 1.5, None, [[]]]}),
    ("application/vnd.example+json; charset=utf-8", {"a": "b"}),
    ("text/plain", "é\nx"),
    ("application/octet-stream", b"\x00\xff"),
]


def attributes(number, media_type):
    return {"id": f"event-{number}", "source": "/shop?a=b#c", "type": "com.example.made",
            "datacontenttype": media_type, "subject": "50% of \"é\" \\ 😀", "customer": "c1"}


@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
class CloudEvents(unittest.TestCase):
    def test_events_of_the_sdk_arrive_as_they_were_sent(self):
        for mode in (to_binary, to_structured):
            with self.subTest(mode.__name__), \
                    gateway.gateway(["dev"], {"STREAM_EVENTS_LOG_FORMAT": "json"}) as (_, url, _):
                self.send_and_read(mode, url)

    def send_and_read(self, mode, url):
        sent = [CloudEvent(attributes(number, media_type), data)
                for number, (media_type, data) in enumerate(SAMPLES)]
        for event in sent + sent[:1]:
            message = mode(event, JSONFormat())
            self.assertEqual(gateway.status(f"{url}/push/orders", method="POST", data=message.body,
                                            headers=message.headers), 204)
        query = "mode=poll&since=10m&format=cloudevents&filter=attributes.ce-customer%3D%22c1%22"
        with urllib.request.urlopen(f"{url}/events?{query}", timeout=gateway.PATIENCE) as answer:
            page = json.load(answer)
        # The event that was sent again is there once.
        self.assertEqual(len(page["events"]), len(sent))
        for event, text in zip(sent, page["events"]):
            read = JSONFormat().read(None, json.dumps(text))
            self.assertEqual(read.get_data(), event.get_data())
            known = {name: value for name, value in read.get_attributes().items() if name not in ADDED}
            self.assertEqual(known, event.get_attributes())
