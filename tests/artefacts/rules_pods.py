"""Rules of the pods: how many, how large, and what they may do."""

import re

from manifests import ROOT, all_of, at, one, pod, settings
from quantities import seconds, size

MESSAGE_ID = 75  # Bytes in memory, with room: README.md, Memory.
STREAM = 15 << 10
SECRETS = "/etc/stream-events/"


def _most_replicas(docs):
    replicas = at(one(docs, "Deployment"), "spec", "replicas", default=1)
    scalers = [doc["spec"] for doc in all_of(docs, "HorizontalPodAutoscaler")]
    return max([replicas] + [scaler["maxReplicas"] for scaler in scalers])


def replicas_share_a_log(docs):
    """Events in memory are in one process: of two, each would have half."""
    most = _most_replicas(docs)
    if settings(docs)["STREAM_EVENTS_BACKPLANE"] == "local" and most != 1:
        yield f"there may be {most} replicas, and each keeps its events to itself"


def autoscaler_leaves_room(docs):
    """It scales on a gauge that there is, before replicas are full, and it alone sets a number."""
    scaler = one(docs, "HorizontalPodAutoscaler")
    if not scaler:
        return
    if "replicas" in one(docs, "Deployment")["spec"]:
        yield "each apply would undo what the autoscaler did: remove replicas"
    if scaler["spec"]["scaleTargetRef"]["name"] != "stream-events":
        yield "the autoscaler scales something else"
    full = int(settings(docs)["STREAM_EVENTS_SUBSCRIBERS_MAX"])
    least = scaler["spec"].get("minReplicas", 1)
    gauges = re.findall(r'gauge\("(\w+)"', (ROOT / "src/ops.rs").read_text())
    for metric in scaler["spec"]["metrics"]:
        name = metric["pods"]["metric"]["name"]
        gauge = re.fullmatch(r"prometheus\.googleapis\.com\|stream_events_(\w+)\|gauge", name)
        if not gauge or gauge[1] not in gauges:
            yield f"there is no gauge {name}"
        streams = int(metric["pods"]["target"]["averageValue"])
        if least < 2 or streams * least > full * (least - 1):
            yield f"{least} replicas of {streams} streams cannot lose one, of {full} at most"


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
            + int(texts["STREAM_EVENTS_SUBSCRIBERS_MAX"]) * STREAM)
    limit = size(at(resources, "limits", "memory", default="0"))
    if limit * 3 / 4 < full:
        yield f"the limit is {limit / 2**20:.0f} MiB, and {full / 2**20:.0f} MiB can be in use"
    if at(resources, "requests", "memory") != at(resources, "limits", "memory"):
        yield "memory is promised that is not reserved"
    if "cpu" not in resources.get("requests", {}) or "cpu" in resources.get("limits", {}):
        yield "CPU must be requested, and not limited"


def updates_leave_nobody_out(docs):
    rolling = at(one(docs, "Deployment"), "spec", "strategy", "rollingUpdate", default={})
    if rolling.get("maxUnavailable") != 0 or rolling.get("maxSurge", 0) < 1:
        yield "an update takes a pod before there is a new one"
    budget = at(one(docs, "PodDisruptionBudget"), "spec", default={})
    if budget.get("maxUnavailable") != 1:
        yield "the disruption budget is not one pod at a time"
    spread = {constraint["topologyKey"] for constraint in
              pod(docs).get("topologySpreadConstraints", [])}
    if spread != {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}:
        yield f"replicas are spread over {sorted(spread)} only"


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


RULES = [replicas_share_a_log, autoscaler_leaves_room, pods_are_restricted, environment_is_ours,
         probes_ask_the_ops_port, memory_suffices, updates_leave_nobody_out, secrets_are_mounted,
         redis_keeps_what_was_acked]
