"""What a careless edit does to the pods, and which rule must tell of it."""

import rules_leaving as leaving
import rules_pods as pods
from changing import MISSING, of_pod, put, setting
from manifests import one, pod

CONTAINER = ("containers", 0)
SIDECAR = ("spec", "template", "metadata", "annotations")


def one_drain_more(docs):
    """terminationGracePeriodSeconds stays: the drain grows by what was to spare."""
    one(docs, "ConfigMap")["data"]["STREAM_EVENTS_DRAIN_TIMEOUT"] = "29 s"


def host_path(docs):
    pod(docs)["volumes"].append({"name": "node", "hostPath": {"path": "/"}})


# The rule, where, the change, and what the rule says then.
LEAVING = [
    (leaving.grace_outlasts_drain, "base", of_pod(31, "terminationGracePeriodSeconds"), "is 31"),
    (leaving.grace_outlasts_drain, "base", of_pod(MISSING, "terminationGracePeriodSeconds"),
     "is 30"),
    (leaving.grace_outlasts_drain, "base", one_drain_more, "takes 40 s"),
    (leaving.grace_outlasts_drain, "base",
     of_pod({"preStop": {"sleep": {"seconds": 10}}}, *CONTAINER, "lifecycle"), "takes 41 s"),
    (leaving.grace_outlasts_drain, "base",
     of_pod({"preStop": {"exec": {"command": ["sleep", "5"]}}}, *CONTAINER, "lifecycle"), "inf"),
    (leaving.backend_drains_as_long, "gke-ingress",
     put(60, "BackendConfig", "spec", "connectionDraining", "drainingTimeoutSec"), "is 60"),
    (leaving.backend_drains_as_long, "gke-gateway",
     put(MISSING, "GCPBackendPolicy", "spec", "default", "connectionDraining"), "is 0"),
    (leaving.unready_is_seen_in_time, "gke-ingress", setting("DRAIN_DELAY", "10 s"), "10 s"),
    (leaving.unready_is_seen_in_time, "gke-gateway",
     put(30, "HealthCheckPolicy", "spec", "default", "checkIntervalSec"), "after 60 s"),
    (leaving.unready_is_seen_in_time, "gke-ingress",
     put("/", "BackendConfig", "spec", "healthCheck", "requestPath"), "not for /readyz"),
    (leaving.unready_is_seen_in_time, "gke-gateway",
     put(6, "HealthCheckPolicy", "spec", "default", "timeoutSec"), "more than checkInterval"),
    (leaving.sidecar_outlasts_drain, "istio", put("{}", "Deployment", *SIDECAR,
     "proxy.istio.io/config"), "is 5 s"),
    (leaving.sidecar_outlasts_drain, "istio",
     put("terminationDrainDuration: 35s", "Deployment", *SIDECAR, "proxy.istio.io/config"),
     "before its sidecar"),
    (leaving.sidecar_outlasts_drain, "istio", put("false", "Deployment", *SIDECAR,
     "sidecar.istio.io/rewriteAppHTTPProbers"), "probes"),
]
PODS = [
    (pods.pods_are_restricted, "base", of_pod(0, "securityContext", "runAsUser"), "root"),
    (pods.pods_are_restricted, "base", of_pod(MISSING, "securityContext", "seccompProfile"),
     "seccomp"),
    (pods.pods_are_restricted, "base", of_pod(True, "automountServiceAccountToken"), "token"),
    (pods.pods_are_restricted, "base", of_pod(True, "hostNetwork"), "node's namespaces"),
    (pods.pods_are_restricted, "base", host_path, "directory of the node"),
    (pods.pods_are_restricted, "base", of_pod(True, *CONTAINER, "securityContext",
     "allowPrivilegeEscalation"), "privileges"),
    (pods.pods_are_restricted, "redis", of_pod({"drop": ["ALL"], "add": ["NET_ADMIN"]},
     *CONTAINER, "securityContext", "capabilities"), "capabilities"),
    (pods.pods_are_restricted, "base", of_pod(False, *CONTAINER, "securityContext",
     "readOnlyRootFilesystem"), "file system"),
    (pods.environment_is_ours, "base", of_pod(MISSING, "enableServiceLinks"), "enableService"),
    (pods.environment_is_ours, "base", setting("KEEPALIVE", "15 s"), "KEEPALIVE is no setting"),
    (pods.environment_is_ours, "base", setting("REDIS_PASSWORD", "secret"), "no setting for"),
    (pods.probes_ask_the_ops_port, "base", of_pod("http", *CONTAINER, "livenessProbe", "httpGet",
     "port"), "livenessProbe"),
    (pods.probes_ask_the_ops_port, "base", of_pod(MISSING, *CONTAINER, "readinessProbe"),
     "readinessProbe"),
    (pods.probes_ask_the_ops_port, "base", of_pod(1, *CONTAINER, "livenessProbe",
     "failureThreshold"), "killed before"),
    (pods.memory_suffices, "base", setting("RING_BYTES_TOTAL", "2 GiB"), "can be in use"),
    (pods.memory_suffices, "base", of_pod("1Gi", *CONTAINER, "resources", "requests", "memory"),
     "not reserved"),
    (pods.memory_suffices, "base", of_pod("1", *CONTAINER, "resources", "limits", "cpu"), "CPU"),
    (pods.changed_settings_replace_the_pods, "base", of_pod("stream-events", *CONTAINER, "envFrom",
     0, "configMapRef", "name"), "would replace no pod"),
    (pods.changed_settings_replace_the_pods, "redis", put("stream-events-redis", "StatefulSet",
     "spec", "template", "spec", "volumes", 0, "configMap", "name", name="stream-events-redis"),
     "ConfigMap stream-events-redis"),
    (pods.secrets_are_mounted, "redis", of_pod(True, "volumes", 0, "secret", "optional"),
     "without the Secret"),
    (pods.secrets_are_mounted, "base", of_pod([], *CONTAINER, "volumeMounts"), "nothing is"),
    (pods.redis_keeps_what_was_acked, "redis", put("maxmemory 1200mb\nmaxmemory-policy allkeys-lru",
     "ConfigMap", "data", "redis.conf", name="stream-events-redis"), "maxmemory-policy"),
    (pods.redis_keeps_what_was_acked, "redis", setting("LOG_BYTES", "1 GiB"), "the log takes 1024"),
]
CHANGES = LEAVING + PODS
