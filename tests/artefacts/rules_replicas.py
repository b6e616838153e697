"""Rules of how many pods there are, and how one takes the place of another."""

import re

from manifests import ROOT, all_of, annotation, at, one, pod, settings
from quantities import cores

SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"


def _in_memory(docs):
    return settings(docs)["STREAM_EVENTS_BACKPLANE"] == "local"


def _most_replicas(docs):
    replicas = at(one(docs, "Deployment"), "spec", "replicas", default=1)
    scalers = [doc["spec"] for doc in all_of(docs, "HorizontalPodAutoscaler")]
    return max([replicas] + [scaler["maxReplicas"] for scaler in scalers])


def replicas_share_a_log(docs):
    """Events in memory are in one process: of two, each would have half."""
    most = _most_replicas(docs)
    if _in_memory(docs) and most != 1:
        yield f"there may be {most} replicas, and each keeps its events to itself"


def memory_is_never_in_two_pods(docs):
    """With events in memory, the old pod is stopped before there is a new one, and seldom."""
    if not _in_memory(docs):
        return
    strategy = at(one(docs, "Deployment"), "spec", "strategy", default={})
    # 25 % each unless told, which is one pod and none of one replica.
    surge = at(strategy, "rollingUpdate", "maxSurge", default="25%")
    if strategy.get("type") != "Recreate" and surge not in (0, "0%"):
        yield f"maxSurge is {surge}: two pods are ready, and each gets half of the pushes"
    template = at(one(docs, "Deployment"), "spec", "template")
    if annotation(template, SAFE_TO_EVICT) != "false":
        yield "the cluster autoscaler may move the pod, and the events with it"


def shared_pods_overlap(docs):
    """With Redis, a new pod has proved itself before an old one leaves; they may be moved."""
    if _in_memory(docs):
        return
    spec = one(docs, "Deployment")["spec"]
    rolling = at(spec, "strategy", "rollingUpdate", default={})
    if at(spec, "strategy", "type") != "RollingUpdate" or rolling.get("maxUnavailable") != 0 \
            or rolling.get("maxSurge", 0) < 1:
        yield "an update takes a pod before there is a new one"
    if spec.get("minReadySeconds", 0) < 5:
        yield "a new pod that fails right after its start does not stop the update"
    if annotation(spec["template"], SAFE_TO_EVICT) == "false":
        yield "the cluster autoscaler may move no pod, although the events are in Redis"


def nodes_can_be_emptied(docs):
    """One pod at a time, in memory too: a budget that allows none would hold each upgrade."""
    budget = at(one(docs, "PodDisruptionBudget"), "spec", default={})
    if budget.get("maxUnavailable") != 1 or "minAvailable" in budget:
        yield "the disruption budget is not one pod at a time"
    if budget.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
        yield "a pod that is not ready holds its node"
    spread = {constraint["topologyKey"] for constraint in
              pod(docs).get("topologySpreadConstraints", [])}
    if spread != {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}:
        yield f"replicas are spread over {sorted(spread)} only"


def _targets(docs, scaler):
    """Each metric of the autoscaler: its name, its target for a replica, and when one is full."""
    texts = settings(docs)
    gauges = re.findall(r'gauge\("(\w+)"', (ROOT / "src/server/health.rs").read_text())
    for metric in scaler["spec"]["metrics"]:
        if metric["type"] == "Resource":
            # Of two workers, two cores: the container has no limit.
            yield (metric["resource"]["name"],
                   cores(metric["resource"]["target"].get("averageValue", "0")),
                   int(texts["STREAM_EVENTS_WORKERS"]))
            continue
        name = metric["pods"]["metric"]["name"]
        gauge = re.fullmatch(r"prometheus\.googleapis\.com\|stream_events_(\w+)\|gauge", name)
        known = gauge and gauge[1] in gauges and all_of(docs, "PodMonitoring")
        yield (name if known else f"{name}, which nobody collects",
               int(metric["pods"]["target"]["averageValue"]),
               int(texts["STREAM_EVENTS_SUBSCRIBERS_MAX"]))


def autoscaler_leaves_room(docs):
    """It scales on what the cluster has, before replicas are full, and it alone sets a number."""
    scaler = one(docs, "HorizontalPodAutoscaler")
    if not scaler:
        return
    if "replicas" in one(docs, "Deployment")["spec"]:
        yield "each apply would undo what the autoscaler did: remove replicas"
    if scaler["spec"]["scaleTargetRef"]["name"] != "stream-events":
        yield "the autoscaler scales something else"
    least = scaler["spec"].get("minReplicas", 1)
    names = []
    for name, target, full in _targets(docs, scaler):
        names.append(name)
        if "nobody" in name:
            yield f"there is no gauge {name}"
        if least < 2 or not 0 < target * least <= full * (least - 1):
            yield f"{name}: {least} replicas of {target:g} cannot lose one, of {full} at most"
    if "cpu" not in names:
        yield "without an adapter the autoscaler knows nothing: no CPU"


RULES = [replicas_share_a_log, memory_is_never_in_two_pods, shared_pods_overlap,
         nodes_can_be_emptied, autoscaler_leaves_room]
