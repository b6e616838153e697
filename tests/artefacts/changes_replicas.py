"""What a careless edit does to the number of pods and to updates, and which rule must tell of it."""

import rules_replicas as replicas
from changing import MISSING, of_pod, put, setting, without

STRATEGY = ("spec", "strategy")
ANNOTATIONS = ("spec", "template", "metadata", "annotations")
METRIC = ("spec", "metrics", 1, "pods")
STREAMS = "gke-gateway+redis+gke-autoscaler+cloud-armor"

# The rule, where, the change, and what the rule says then.
CHANGES = [
    (replicas.replicas_share_a_log, "base", put(2, "Deployment", "spec", "replicas"), "2 replicas"),
    (replicas.replicas_share_a_log, "redis", setting("BACKPLANE", "local"), "6 replicas"),
    (replicas.memory_is_never_in_two_pods, "base", put(1, "Deployment", *STRATEGY, "rollingUpdate",
     "maxSurge"), "maxSurge is 1"),
    (replicas.memory_is_never_in_two_pods, "gke-ingress", put(1, "Deployment", *STRATEGY,
     "rollingUpdate", "maxSurge"), "each gets half"),
    (replicas.memory_is_never_in_two_pods, "gke-gateway", put(MISSING, "Deployment", *STRATEGY),
     "maxSurge is 25%"),
    (replicas.memory_is_never_in_two_pods, "redis", setting("BACKPLANE", "local"), "maxSurge is 1"),
    (replicas.memory_is_never_in_two_pods, "istio", put(MISSING, "Deployment", *ANNOTATIONS,
     replicas.SAFE_TO_EVICT), "may move the pod"),
    (replicas.shared_pods_overlap, "redis", put(1, "Deployment", *STRATEGY, "rollingUpdate",
     "maxUnavailable"), "before there is a new one"),
    (replicas.shared_pods_overlap, "gke-ingress+redis", put(0, "Deployment", *STRATEGY,
     "rollingUpdate", "maxSurge"), "before there is a new one"),
    (replicas.shared_pods_overlap, "redis", put({"type": "Recreate"}, "Deployment", *STRATEGY),
     "before there is a new one"),
    (replicas.shared_pods_overlap, "redis", put(MISSING, "Deployment", "spec", "minReadySeconds"),
     "does not stop the update"),
    (replicas.shared_pods_overlap, "istio+redis", put("false", "Deployment", *ANNOTATIONS,
     replicas.SAFE_TO_EVICT), "may move no pod"),
    (replicas.shared_pods_overlap, "base", setting("BACKPLANE", "redis://10.0.0.3:6379"),
     "before there is a new one"),
    (replicas.nodes_can_be_emptied, "base", without("PodDisruptionBudget"), "disruption"),
    (replicas.nodes_can_be_emptied, "base", put(0, "PodDisruptionBudget", "spec",
     "maxUnavailable"), "one pod at a time"),
    (replicas.nodes_can_be_emptied, "redis", put(MISSING, "PodDisruptionBudget", "spec",
     "unhealthyPodEvictionPolicy"), "holds its node"),
    (replicas.nodes_can_be_emptied, "redis", of_pod([], "topologySpreadConstraints"), "spread"),
    (replicas.autoscaler_leaves_room, "redis", put(2, "Deployment", "spec", "replicas"), "undo"),
    (replicas.autoscaler_leaves_room, STREAMS, put("15000", "HorizontalPodAutoscaler", *METRIC,
     "target", "averageValue"), "cannot lose one"),
    (replicas.autoscaler_leaves_room, "redis", put("1500m", "HorizontalPodAutoscaler", "spec",
     "metrics", 0, "resource", "target", "averageValue"), "cpu: 2 replicas of 1.5"),
    (replicas.autoscaler_leaves_room, "redis", put(1, "HorizontalPodAutoscaler", "spec",
     "minReplicas"), "cannot lose one"),
    (replicas.autoscaler_leaves_room, STREAMS, put("prometheus.googleapis.com|streams|gauge",
     "HorizontalPodAutoscaler", *METRIC, "metric", "name"), "no gauge"),
    (replicas.autoscaler_leaves_room, STREAMS, without("PodMonitoring"), "nobody collects"),
    (replicas.autoscaler_leaves_room, STREAMS, put(MISSING, "HorizontalPodAutoscaler", "spec",
     "metrics", 0), "no CPU"),
    (replicas.autoscaler_leaves_room, "redis", put("other", "HorizontalPodAutoscaler", "spec",
     "scaleTargetRef", "name"), "something else"),
]
