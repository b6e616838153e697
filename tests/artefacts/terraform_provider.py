"""A stand-in for a Terraform provider, which terraform starts: terraform_provider.py SCHEMAS PROVIDER
It has the schemas of the real provider, and plans any change. It creates nothing.
The protocol: https://developer.hashicorp.com/terraform/plugin/terraform-plugin-protocol (version 5)"""

import json
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

PROJECT_NUMBER = "123456789"
UNKNOWN = object()


def varint(number):
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number, value):
    """A field of a message of Protocol Buffers."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(message):
    """{number: value} of a message whose fields occur once and are texts."""
    found, at = {}, 0

    def number():
        nonlocal at
        result = shift = 0
        while True:
            byte, at = message[at], at + 1
            result, shift = result | (byte & 127) << shift, shift + 7
            if byte < 128:
                return result

    while at < len(message):
        key, size = number(), number()
        found[key >> 3], at = message[at:at + size], at + size
    return found


def schema(block):
    """A message Schema."""
    return field(2, _block(block))


def _block(block):
    found = b""
    for name, (kind, optional) in block["attributes"].items():
        flags = field(5, 1) + field(6, 1) if optional else field(4, 1)
        found += field(2, field(1, name) + field(2, json.dumps(kind)) + flags)
    for name, kind in block["computed"].items():
        found += field(2, field(1, name) + field(2, json.dumps(kind)) + field(6, 1))
    for name, (inner, most, optional) in block["blocks"].items():
        # 1 is a single block, 2 a list of them.
        single = name == "timeouts"
        limits = b"" if single else field(4, int(not optional)) + field(5, most)
        found += field(3, field(1, name) + field(2, _block(inner)) + field(3, 1 if single else 2) + limits)
    return found


def decode(data):
    """What MessagePack holds, as far as terraform uses it."""
    at = 0

    def take(size):
        nonlocal at
        at += size
        return data[at - size:at]

    def number(size):
        return int.from_bytes(take(size), "big")

    def items(count, pairs):
        return {value(): value() for _ in range(count)} if pairs else [value() for _ in range(count)]

    def value():
        head = number(1)
        if head < 0x80 or head >= 0xE0:
            return head if head < 0x80 else head - 256
        if head < 0xA0:
            return items(head & 15, head < 0x90)
        if head < 0xC0:
            return take(head & 31).decode()
        if head in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[head]
        if head in (0xCA, 0xCB):
            return struct.unpack(">f" if head == 0xCA else ">d", take(4 if head == 0xCA else 8))[0]
        if 0xCC <= head <= 0xD3:
            return int.from_bytes(take(1 << (head & 3)), "big", signed=head >= 0xD0)
        if 0xD9 <= head <= 0xDB:
            return take(number(1 << (head - 0xD9))).decode()
        if 0xDC <= head <= 0xDF:
            return items(number(4 if head & 1 else 2), head >= 0xDE)
        # An extension: a value that is not known yet.
        take(1 + (number(1 << (head - 0xC7)) if head <= 0xC9 else 1 << (head - 0xD4)))
        return UNKNOWN

    return value()


def encode(value):
    if value is UNKNOWN:
        return b"\xd4\x00\x00"
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return struct.pack(">bq", -0x2D, value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"\xdb" + struct.pack(">I", len(value.encode())) + value.encode()
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(encode, value))
    pairs = b"".join(encode(key) + encode(each) for key, each in value.items())
    return b"\xdf" + struct.pack(">I", len(value)) + pairs


class Provider:
    def __init__(self, own):
        self.own = own

    def get_schema(self, _):
        provider = {"attributes": {name: ["string", True] for name in ("project", "region")},
                    "blocks": {}, "computed": {}}
        found = field(1, schema(provider))
        for number, kind in ((2, "resources"), (3, "data")):
            for name, block in self.own[kind].items():
                found += field(number, field(1, name) + field(2, schema(block)))
        return found

    def plan(self, request):
        """The resource as it was asked for. Values that are known only once it exists stay unknown."""
        asked = fields(request)
        planned = decode(fields(asked[3])[1])
        if planned is not None:
            for name in [*self.own["resources"][asked[1].decode()]["computed"], "id"]:
                if name in planned and planned[name] is None:
                    planned[name] = UNKNOWN
        return field(1, field(1, encode(planned))) + field(5, 1)

    def read_data(self, request):
        found = decode(fields(fields(request)[2])[1])
        found["number"] = PROJECT_NUMBER
        return field(1, field(1, encode(found)))

    def methods(self):
        nothing = lambda _: b""  # noqa: E731
        return {
            "GetSchema": self.get_schema, "PlanResourceChange": self.plan,
            "ReadDataSource": self.read_data, "Configure": nothing, "Stop": nothing,
            "PrepareProviderConfig": lambda request: field(1, fields(request)[1]),
            "ValidateResourceTypeConfig": nothing, "ValidateDataSourceConfig": nothing,
        }


def main():
    own = json.loads(Path(sys.argv[1]).read_text())[sys.argv[2]]
    with tempfile.TemporaryDirectory() as folder:
        tls = Path(folder)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2", "-pkeyopt",
                   "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost", "-addext",
                   "subjectAltName=DNS:localhost", "-keyout", tls / "key", "-out", tls / "cert"]
        subprocess.run(command, check=True, capture_output=True)
        key, certificate = ((tls / name).read_bytes() for name in ("key", "cert"))
        handlers = {name: grpc.unary_unary_rpc_method_handler(lambda request, _, method=method: method(request))
                    for name, method in Provider(own).methods().items()}
        server = grpc.server(ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("tfplugin5.Provider", handlers)])
        # Otherwise terraform waits 2 s each time before it ends the process.
        stop = grpc.unary_unary_rpc_method_handler(lambda *_: server.stop(0.1) and b"")
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("plugin.GRPCController", {"Shutdown": stop})])
        server.add_secure_port(f"unix:{tls / 's'}", grpc.ssl_server_credentials([(key, certificate)]))
        server.start()
        body = "".join(certificate.decode().splitlines()[1:-1]).rstrip("=")
        print(f"1|5|unix|{tls / 's'}|grpc|{body}", flush=True)
        server.wait_for_termination()


if __name__ == "__main__":
    main()
