"""gRPC clients that others wrote, each with the same few methods.

`subscribe` opens a stream; `record` gives its next record as a dict, as JSON of protobuf has it.
"""

import asyncio
import base64
import json
import os
import pathlib
import shutil
import subprocess

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from manifests import ROOT

HERE = pathlib.Path(__file__).parent
TOOLS = ROOT / "target/check-artefacts"
# scripts/check-artefacts installs both.
NPM = TOOLS / "npm/node_modules"
HAS_NPM = shutil.which("node") and (NPM / "@grpc/grpc-js").exists()
NO_NPM = "that npm's gRPC client can read, since it could not be installed (node, npm, network)"
GRPCURL = next((path for path in (TOOLS / "grpcurl/bin/grpcurl",) if path.exists()), None)
NO_GRPCURL = "that grpcurl can list, describe and call, since it could not be installed (cargo, network)"
SERVICE = "stream_events.v1.StreamEvents"


class Reflected:
    """The service as `grpcio` of PyPI sees it with reflection only: without the proto file."""

    def __init__(self, target, credentials=None):
        options = [("grpc.max_receive_message_length", -1)]
        self.channel = grpc.secure_channel(target, credentials, options) if credentials \
            else grpc.insecure_channel(target, options)
        self.pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.service = self.pool.FindServiceByName(SERVICE)

    def method(self, name):
        """The method as a function, and the class of its request."""
        method = self.service.methods_by_name[name]
        asked, answer = (message_factory.GetMessageClass(kind)
                         for kind in (method.input_type, method.output_type))
        kind = ("stream" if method.client_streaming else "unary",
                "stream" if method.server_streaming else "unary")
        make = getattr(self.channel, "_".join(kind))
        path = f"/{SERVICE}/{name}"
        return make(path, asked.SerializeToString, answer.FromString), asked

    def call(self, method, request, **options):
        function, asked = self.method(method)
        return function(json_format.ParseDict(request, asked()), **options)


def as_dict(message):
    return json_format.MessageToDict(message)


def data_of(record):
    return base64.b64decode(record["event"].get("data", ""))


class Python:
    """`grpcio` of PyPI."""

    async def subscribe(self, target, request):
        self.reflected = await asyncio.to_thread(Reflected, target)
        self.answers = self.reflected.call("Subscribe", request)

    async def record(self):
        return as_dict(await asyncio.to_thread(next, self.answers))

    async def code(self):
        try:
            await asyncio.to_thread(next, self.answers)
        except grpc.RpcError as err:
            return err.code().name

    async def cancel(self):
        self.answers.cancel()
        self.reflected.channel.close()


class Process:
    """A client that is a process, and prints JSON."""

    async def start(self, *command):
        self.process = await asyncio.create_subprocess_exec(
            *command, env=os.environ, limit=1 << 24, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    async def record(self):
        text = ""
        while True:
            line = await self.process.stdout.readline()
            assert line, (await self.process.stderr.read()).decode()
            text += line.decode()
            try:
                return json.loads(text)
            except json.JSONDecodeError:
                pass

    async def cancel(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


class Grpcurl(Process):
    """`grpcurl` in Rust (grpcurl-rs of crates.io), with reflection."""

    async def subscribe(self, target, request):
        await self.start(GRPCURL, "-plaintext", "-d", json.dumps(request), target, f"{SERVICE}/Subscribe")

    async def code(self):
        _, said = await self.process.communicate()
        return next(line.split()[1] for line in said.decode().splitlines() if "Code:" in line)


class GrpcJs(Process):
    """`@grpc/grpc-js` of npm, with the proto file."""

    async def subscribe(self, target, request):
        await self.start("node", HERE / "grpc_client.cjs", NPM, ROOT / "proto", target, json.dumps(request))

    async def code(self):
        return (await self.record())["code"]


CLIENTS = {"grpcio": Python} | ({"grpcurl": Grpcurl} if GRPCURL else {}) | \
    ({"grpc-js": GrpcJs} if HAS_NPM else {})
