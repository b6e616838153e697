"""Rules of the pods: how large they are, and what they may do."""

import re

from manifests import HASH, all_of, at, one, pod, settings
from quantities import size

MESSAGE_ID = 75  # Bytes in memory, with room: docs/configuration.md, Memory.
STREAM = 15 << 10
SECRETS = "/etc/stream-events/"


def pods_are_restricted(docs):
    """The Pod Security Standard "restricted", and a root file system that is not written."""
    for doc in all_of(docs, "Deployment") + all_of(docs, "StatefulSet"):
        spec = doc["spec"]["template"]["spec"]
        name = doc["metadata"]["name"]
        security = spec.get("securityContext", {})
        if not security.get("runAsNonRoot") or security.get("runAsUser", 0) == 0:
            yield f"{name}: may run as root"
        if at(security, "seccompProfile", "type") != "RuntimeDefault":
            yield f"{name}: has no seccomp profile"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name}: has a token for Kubernetes"
        if any(spec.get(host) for host in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{name}: is in the node's namespaces"
        if any("hostPath" in volume for volume in spec.get("volumes", [])):
            yield f"{name}: has a directory of the node"
        for container in spec["containers"] + spec.get("initContainers", []):
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{name}: may gain privileges"
            if at(own, "capabilities", "drop") != ["ALL"] or at(own, "capabilities", "add"):
                yield f"{name}: has capabilities"
            if not own.get("readOnlyRootFilesystem"):
                yield f"{name}: may write to its file system"


def environment_is_ours(docs):
    """Service links are STREAM_EVENTS_… names too, at which the gateway refuses to start."""
    if pod(docs).get("enableServiceLinks") is not False:
        yield "enableServiceLinks is not false"
    for name in at(one(docs, "ConfigMap"), "data"):
        if name not in settings({}) or name == "STREAM_EVENTS_REDIS_PASSWORD":
            yield f"{name} is no setting for a ConfigMap"


def probes_ask_the_ops_port(docs):
    """It has a thread of its own. Dead is decided later than unready: a restart loses events."""
    container = pod(docs)["containers"][0]
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"),
                        ("readinessProbe", "/readyz")):
        get = at(container, probe, "httpGet", default={})
        if (get.get("path"), get.get("port")) != (path, "ops"):
            yield f"{probe} does not ask for {path} on the port ops"
    live, ready = (container.get(probe, {}) for probe in ("livenessProbe", "readinessProbe"))
    if live.get("periodSeconds", 10) * live.get("failureThreshold", 3) < \
            ready.get("periodSeconds", 10) * ready.get("failureThreshold", 3):
        yield "a pod is killed before it is unready"


def memory_suffices(docs):
    """All that is bounded, at its bound, and a quarter of the limit for busy streams."""
    texts, resources = settings(docs), pod(docs)["containers"][0].get("resources", {})
    pushes = size(texts["STREAM_EVENTS_PUSH_BYTES_IN_FLIGHT"])
    full = (size(texts["STREAM_EVENTS_RING_BYTES_TOTAL"])
            + pushes + pushes * 3 / 4  # As they come, and decoded from base64.
            + int(texts["STREAM_EVENTS_DEDUP_IDS_TOTAL"]) * MESSAGE_ID
            + size(texts["STREAM_EVENTS_FOLLOWED_BYTES_MAX"])
            + int(texts["STREAM_EVENTS_SUBSCRIBERS_MAX"]) * STREAM)
    limit = size(at(resources, "limits", "memory", default="0"))
    if limit * 3 / 4 < full:
        yield f"the limit is {limit / 2**20:.0f} MiB, and {full / 2**20:.0f} MiB can be in use"
    if at(resources, "requests", "memory") != at(resources, "limits", "memory"):
        yield "memory is promised that is not reserved"
    if "cpu" not in resources.get("requests", {}) or "cpu" in resources.get("limits", {}):
        yield "CPU must be requested, and not limited"


def changed_settings_replace_the_pods(docs):
    """A pod reads its ConfigMap once, so the name that the pod has is one of the content."""
    names = [at(source, "configMapRef", "name", default="")
             for source in pod(docs)["containers"][0].get("envFrom", [])]
    for doc in all_of(docs, "Deployment") + all_of(docs, "StatefulSet"):
        names += [volume["configMap"]["name"]
                  for volume in doc["spec"]["template"]["spec"].get("volumes", [])
                  if "configMap" in volume]
    for name in names:
        if not re.search(f"{HASH}$", name):
            yield f"a change of the ConfigMap {name} would replace no pod"


def secrets_are_mounted(docs):
    """Where a setting names a file of the Secret, no pod may start without it."""
    files = [name for name, text in settings(docs).items() if (text or "").startswith(SECRETS)]
    volumes = {volume["name"]: volume for volume in pod(docs).get("volumes", [])}
    for mount in pod(docs)["containers"][0].get("volumeMounts", []):
        if mount["mountPath"] + "/" == SECRETS:
            optional = at(volumes, mount["name"], "secret", "optional", default=False)
            if files and optional:
                yield f"a pod may start without the Secret that {files} name"
            return
    yield f"nothing is mounted at {SECRETS}"


def redis_keeps_what_was_acked(docs):
    config = at(one(docs, "ConfigMap", "stream-events-redis"), "data", "redis.conf")
    if not config:
        return
    conf = dict(line.split(None, 1) for line in config.splitlines() if line and line[0] != "#")
    if conf.get("maxmemory-policy") != "noeviction":
        yield "Redis may forget what was acked: maxmemory-policy"
    log = size(settings(docs)["STREAM_EVENTS_LOG_BYTES"])
    server = one(docs, "StatefulSet", "stream-events-redis")["spec"]["template"]["spec"]
    limit = size(server["containers"][0]["resources"]["limits"]["memory"])
    memory = size(conf.get("maxmemory", "0"))
    if not log * 1.5 < memory < limit * 0.75:
        yield (f"maxmemory is {memory / 2**20:.0f} MiB: the log takes {log / 2**20:.0f} MiB, "
               f"the pod has {limit / 2**20:.0f} MiB")


RULES = [pods_are_restricted, environment_is_ours, probes_ask_the_ops_port, memory_suffices,
         changed_settings_replace_the_pods, secrets_are_mounted, redis_keeps_what_was_acked]
