"""Prints the fields and annotations of a Cloud Run service (YAML, standard input) that Google's SDK
does not know: deploy_cloud_run.py LIB_OF_THE_SDK"""

import re
import sys
from pathlib import Path

import yaml

sdk = Path(sys.argv[1])
sys.path[:0] = [str(sdk), str(sdk / "third_party")]

from apitools.base.protorpclite import messages  # noqa: E402
from apitools.base.py import encoding  # noqa: E402
from googlecloudsdk.generated_clients.apis.run.v1 import run_v1_messages  # noqa: E402


def unknown(message, path):
    for name in message.all_unrecognized_fields():
        yield f"{path}.{name}"
    for field in message.all_fields():
        value = getattr(message, field.name)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, messages.Message):
                yield from unknown(each, f"{path}.{field.name}")


service = yaml.safe_load(sys.stdin)
found = list(unknown(encoding.DictToMessage(service, run_v1_messages.Service), "service"))
folders = ["api_lib/run", "command_lib/run", "generated_clients/apis/run/v1"]
files = [path for name in folders for path in (sdk / "googlecloudsdk" / name).glob("*.py")]
text = "\n".join(path.read_text() for path in files)
template = service["spec"]["template"]
for notes in (service["metadata"], template["metadata"]):
    # In the SDK the part before the slash may stand apart.
    for name in notes.get("annotations", {}):
        if not re.search(rf"/{re.escape(name.split('/')[1])}\b(?!-)", text):
            found.append(name)
print("\n".join(found))
