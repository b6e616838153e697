"""The documents of the interface are valid, and say what the gateway sends."""

import base64
import http.client
import json
import shutil
import subprocess
import tempfile
import unittest
import urllib.request

import jsonschema
import referencing
import referencing.jsonschema
from openapi_spec_validator import OpenAPIV31SpecValidator

import gateway
from api_tokens import gateway_with_tokens, reader_token

# The schema of AsyncAPI documents, from the npm registry.
SPECS = "@asyncapi/specs@6.11.1"
NO_NPM = "that the AsyncAPI document is valid, since there is no npm to fetch its schema with"


def read(url):
    with urllib.request.urlopen(url, timeout=gateway.PATIENCE) as answer:
        return json.load(answer)


def problems(instance, document, pointer):
    """What is wrong with an instance of a schema that stands at a place in a document."""
    resource = referencing.Resource.from_contents(
        document, default_specification=referencing.jsonschema.DRAFT202012)
    registry = referencing.Registry().with_resource("urn:document", resource)
    schema = {"$ref": f"urn:document#{pointer}"}
    validator = jsonschema.Draft202012Validator(schema, registry=registry)
    return [f"{pointer}: {error.message}" for error in validator.iter_errors(instance)]


def walk(value, pointer=""):
    """All objects of a document, each with its place."""
    if isinstance(value, dict):
        yield pointer, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from walk(part, f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")


def resolved(schema, document):
    """The schema that a reference names."""
    if "$ref" not in schema:
        return schema
    for key in schema["$ref"].removeprefix("#/").split("/"):
        document = document[key]
    return document


def lines(url, token, last_id, count):
    """The first objects of a stream of lines of JSON."""
    headers = {"Accept": "application/x-ndjson", "Authorization": f"Bearer {token}", "Last-Event-ID": last_id}
    found = []
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=gateway.PATIENCE) as answer:
        while len(found) < count and (line := answer.readline()):
            found += [json.loads(line)] if line.strip() else []
    return found


def events(url, token, last_id, count):
    """The first events of a stream, each as its fields."""
    address, _, path = url.removeprefix("http://").partition("/")
    client = http.client.HTTPConnection(address, timeout=gateway.PATIENCE)
    client.request("GET", f"/{path}", headers={"Authorization": f"Bearer {token}", "Last-Event-ID": last_id})
    answer, found, fields = client.getresponse(), [], {}
    while len(found) < count and (line := answer.readline()):
        name, _, text = line.decode().rstrip("\n").partition(": ")
        if name == "":
            found += [fields] if "event" in fields else []
            fields = {}
        elif not name.startswith(":"):
            fields[name] = int(text) if name == "retry" else text
    client.close()
    return found


@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
class Documents(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with gateway.gateway(["dev"], {"STREAM_EVENTS_LOG_FORMAT": "json"}) as (_, url, _):
            cls.openapi, cls.asyncapi = read(f"{url}/openapi.json"), read(f"{url}/asyncapi.json")

    def test_the_openapi_document_is_valid(self):
        errors = OpenAPIV31SpecValidator(self.openapi).iter_errors()
        self.assertEqual([error.message for error in errors], [])

    @unittest.skipUnless(shutil.which("npm"), NO_NPM)
    def test_the_asyncapi_document_is_valid(self):
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts",
                            "--prefix", directory, SPECS], check=True, timeout=600)
            with open(f"{directory}/node_modules/@asyncapi/specs/schemas/3.0.0.json") as file:
                validator = jsonschema.Draft7Validator(json.load(file))
        self.assertEqual([error.message for error in validator.iter_errors(self.asyncapi)], [])

    def test_the_examples_are_as_their_schemas_say(self):
        found, examples = [], 0
        for pointer, part in walk(self.openapi):
            if "example" not in part or "/example/" in pointer:
                continue
            examples += 1
            schema = f"{pointer}/schema" if "schema" in part else pointer
            found += problems(part["example"], self.openapi, schema)
        for name, message in self.asyncapi["components"]["messages"].items():
            for example in message.get("examples", []):
                examples += 1
                place = f"/components/messages/{name}"
                found += problems(example["payload"], self.asyncapi, f"{place}/payload")
                if "headers" in example:
                    found += problems(example["headers"], self.asyncapi, f"{place}/headers")
        self.assertEqual(found, [])
        self.assertGreater(examples, 20)

    def test_control_messages_are_as_the_asyncapi_document_says(self):
        with gateway_with_tokens({"STREAM_EVENTS_STREAM_AGE_MAX": "2s"}) as (url, secret):
            # The token expires within a minute, so that the stream says so.
            token = reader_token(secret, lasts=50)
            seen = events(f"{url}/events?topic=orders", token, "not-an-id", 4)
            seen_lines = lines(f"{url}/events?topic=orders", token, "not-an-id", 5)
        names = [fields["event"] for fields in seen]
        self.assertEqual(sorted(names), ["stream-auth", "stream-end", "stream-gap", "stream-open"])
        for fields in seen:
            place = f"/components/messages/{fields['event']}"
            data = json.loads(fields.pop("data"))
            message = self.asyncapi["components"]["messages"][fields["event"]]
            self.assertEqual(problems(data, self.asyncapi, f"{place}/payload"), [])
            self.assertEqual(problems(fields, self.asyncapi, f"{place}/headers"), [])
            # A field that the gateway sends is in the document.
            payload = resolved(message["payload"], self.asyncapi)
            self.assertLessEqual(set(data), set(payload["properties"]))
            self.assertLessEqual(set(fields), set(message["headers"]["properties"]))
        names_of_lines = sorted(name for line in seen_lines for name in line)
        self.assertEqual(names_of_lines, sorted([*names, "stream-checkpoint"]))
        for line in seen_lines:
            place = f"/components/messages/{next(iter(line)).replace('stream', 'line')}/payload"
            self.assertEqual(problems(line, self.asyncapi, place), [])

    def test_events_are_as_the_documents_say(self):
        samples = [b"", b"text", b"\xff", b'{"id":1}']
        with gateway.gateway(["dev"], {"STREAM_EVENTS_LOG_FORMAT": "json"}) as (_, url, _):
            for number, data in enumerate(samples):
                message = {"data": base64.b64encode(data).decode(), "messageId": str(number),
                           "publishTime": "2026-01-31T12:00:00Z", "orderingKey": "k",
                           "attributes": {"event": "created"}}
                self.assertEqual(gateway.status(f"{url}/push/orders", method="POST",
                                                data=json.dumps({"message": message}).encode()), 204)
            for name, schema in {"message": "Message", "cloudevents": "CloudEvent"}.items():
                page = read(f"{url}/events?mode=poll&since=10m&format={name}")
                self.assertEqual(problems(page, self.openapi, "/components/schemas/Page"), [])
                # Before the events, the stream says stream-open, and stream-gap: the gateway is young.
                streamed = lines(f"{url}/events?since=10m&format={name}", "", "", 2 + len(samples))
                self.assertEqual(streamed[2:], page["events"])
                self.assertEqual(len(page["events"]), len(samples))
                known = set(self.openapi["components"]["schemas"][schema]["properties"])
                for event in page["events"]:
                    place = f"/components/schemas/{schema}"
                    self.assertEqual(problems(event, self.openapi, place), [])
                    self.assertLessEqual(set(event), known)
