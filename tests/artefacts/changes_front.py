"""What a careless edit does to what is in front of the pods, and which rule must tell of it."""

import rules_names as names
import rules_network as network
import rules_streams as streams
from changing import MISSING, add, annotated, of_pod, put, setting, without
from manifests import PUBLIC
from public_paths import PUBLIC_PATHS

INGRESS = ("spec", "rules", 0, "http", "paths")
POLICY = ("spec", "ingress")
METRICS_PATH = {"path": "/metrics", "pathType": "Exact",
                "backend": {"service": {"name": "stream-events", "port": {"name": "http"}}}}
SERVICE = "gke-gateway+prometheus-service"
NGINX, GKE_RULE = "nginx.ingress.kubernetes.io", ("spec", "rules", 0)


def also_service_monitor(docs):
    docs.append({"kind": "ServiceMonitor", "apiVersion": "monitoring.coreos.com/v1",
                 "metadata": {"name": "stream-events"}, "spec": {}})


# The rule, where, the change, and what the rule says then.
STREAMS = [
    (streams.responses_may_last, "gke-ingress", put(3000, "BackendConfig", "spec", "timeoutSec"),
     "may last 3000 s"),
    (streams.responses_may_last, "gke-ingress",
     annotated(MISSING, "Service", "cloud.google.com/backend-config"), "may last 30 s"),
    (streams.responses_may_last, "gke-gateway",
     put(30, "GCPBackendPolicy", "spec", "default", "timeoutSec"), "may last 30 s"),
    (streams.responses_may_last, "gke-gateway", without("GCPBackendPolicy"), "may last 30 s"),
    (streams.responses_may_last, "gke-gateway",
     put({"request": "10m"}, "HTTPRoute", *GKE_RULE, "timeouts"), "may last 600"),
    (streams.responses_may_last, "gke-ingress", setting("STREAM_AGE_MAX", "2 h"), "lasts 7200 s"),
    (streams.responses_may_last, "istio", put("15s", "VirtualService", "spec", "http", 0,
     "timeout"), "may last 15"),
    (streams.silence_is_broken_in_time, "base", setting("KEEP_ALIVE", "30 s"), "many proxies"),
    (streams.silence_is_broken_in_time, "nginx-ingress",
     annotated("20", "Ingress", f"{NGINX}/proxy-read-timeout"), "20 s of silence"),
    (streams.silence_is_broken_in_time, "istio",
     put("30s", "DestinationRule", "spec", "trafficPolicy", "connectionPool", "http",
         "idleTimeout"), "30s"),
    (streams.nginx_lets_through, "nginx-ingress",
     annotated(MISSING, "Ingress", "nginx.org/proxy-buffering"), "F5 nginx holds"),
    (streams.nginx_lets_through, "nginx-ingress",
     annotated("16m", "Ingress", f"{NGINX}/proxy-body-size"), "refuses pushes"),
    (streams.websockets_pass, "nginx-ingress",
     annotated("other", "Ingress", "nginx.org/websocket-services"), "no handshake"),
    (streams.websockets_pass, "istio",
     put("UPGRADE", "DestinationRule", "spec", "trafficPolicy", "connectionPool", "http",
         "h2UpgradePolicy"), "inside the mesh"),
    (streams.websockets_pass, "gke-ingress",
     annotated('{"http":"HTTP2"}', "Service", "cloud.google.com/app-protocols"), "is for HTTP/2"),
    (streams.websockets_pass, "gke-gateway",
     put("kubernetes.io/h2c", "Service", "spec", "ports", 0, "appProtocol"), "is for HTTP/2"),
    (streams.mesh_tries_another_pod, "istio", put("connect-failure,refused-stream,reset",
     "VirtualService", "spec", "http", 1, "retries", "retryOn"), "'reset'"),
    (streams.mesh_tries_another_pod, "istio", put(0, "VirtualService", "spec", "http", 0, "retries",
     "attempts"), "no other pod"),
    (streams.mesh_tries_another_pod, "istio", put(MISSING, "VirtualService", "spec", "http", 0,
     "retries", "retryOn"), "after ['503']"),
    (streams.responses_may_last, "gateway",
     put("30s", "HTTPRoute", *GKE_RULE, "timeouts", "request"), "request: a response may last 30.0 s"),
    (streams.responses_may_last, "gateway",
     put(MISSING, "HTTPRoute", "spec", "rules", 1, "timeouts"), "backendRequest: a response may last 15.0 s"),
    (streams.unhealthy_by_default, "gke-gateway", without("HealthCheckPolicy"), "healthy"),
    (streams.proxies_are_counted, "gke-ingress", setting("TRUSTED_PROXIES", "1"), "2 add"),
    (streams.proxies_are_counted, "gke-gateway", setting("TRUSTED_PROXIES", "3"), "2 add"),
    (streams.proxies_are_counted, "gateway", setting("TRUSTED_PROXIES", "2"), "1 add"),
    (streams.proxies_are_counted, "istio", setting("TRUSTED_PROXIES", "0"), "1 add"),
]
NETWORK = [
    (network.ports_agree, "base", setting("OPS_LISTEN", "0.0.0.0:9091"), "9091"),
    (network.ports_agree, "base", add({"name": "ops", "port": 9090, "targetPort": "ops"},
     "Service", "spec", "ports"), "leads to ops"),
    (network.ports_agree, SERVICE, put(MISSING, "Service", "spec", "clusterIP",
     name="stream-events-metrics"), "leads to ops"),
    (network.ports_agree, "base", put("LoadBalancer", "Service", "spec", "type"), "outside"),
    (network.ports_agree, "gke-ingress", put(9090, "BackendConfig", "spec", "healthCheck", "port"),
     "health on 9090"),
    (network.only_public_paths, "nginx-ingress", add(METRICS_PATH, "Ingress", *INGRESS),
     "/metrics"),
    (network.only_public_paths, "gke-ingress", put("Prefix", "Ingress", *INGRESS, 0, "pathType"),
     "/events…"),
    (network.only_public_paths, "gke-gateway", put(MISSING, "HTTPRoute", *GKE_RULE, "matches"),
     "/… can"),
    (network.only_public_paths, "istio", put([{"uri": {"prefix": "/"}}], "VirtualService", "spec",
     "http", 0, "match"), "/… can"),
    (network.network_is_closed, "base", put(["Ingress"], "NetworkPolicy", "spec", "policyTypes"),
     "both ways"),
    (network.network_is_closed, "base", put([{"namespaceSelector": {}}], "NetworkPolicy", *POLICY,
     1, "from"), "gets metrics"),
    (network.network_is_closed, "gke-ingress", add({"ipBlock": {"cidr": "0.0.0.0/0"}},
     "NetworkPolicy", *POLICY, 0, "from"), "0.0.0.0/0"),
    (network.network_is_closed, "gateway", add({"namespaceSelector": {}}, "NetworkPolicy", *POLICY, 0,
     "from"), "X-Forwarded-For"),
    (network.network_is_closed, "gke-gateway", put([{"namespaceSelector": {}}], "NetworkPolicy",
     *POLICY, 0, "from"), "X-Forwarded-For"),
    (network.network_lets_out, "base", put(MISSING, "NetworkPolicy", "spec", "egress", 1), "443"),
    (network.network_lets_out, "redis", setting("BACKPLANE", "redis://10.0.0.3:6390"), "6390"),
    (network.network_lets_out, "istio", put(MISSING, "NetworkPolicy", "spec", "egress", 2),
     "15012"),
    (network.network_lets_out, "base", add({}, "NetworkPolicy", "spec", "egress"), "every port"),
    (network.network_lets_out, "base", add({"ports": [{"port": 80}]}, "NetworkPolicy", "spec",
     "egress"), "metadata server: port 80"),
    (network.network_lets_out, "gke-gateway", add({"ports": [{"port": 988}]}, "NetworkPolicy",
     "spec", "egress"), "metadata server: port 988"),
    (network.network_lets_out, "gke-ingress", add({"to": [{"ipBlock": {"cidr":
     "169.254.169.254/32"}}], "ports": [{"port": 443}]}, "NetworkPolicy", "spec", "egress"),
     "metadata server: 169.254.169.254/32"),
    (network.only_the_gateway_writes_the_log, "redis", put(MISSING, "NetworkPolicy", *POLICY, 0,
     "from", name="stream-events-redis"), "may write to Redis"),
    (network.only_the_gateway_writes_the_log, "redis", put(["Ingress"], "NetworkPolicy", "spec",
     "policyTypes", name="stream-events-redis"), "connect to others"),
    (network.only_the_gateway_writes_the_log, "redis", put(MISSING, "StatefulSet", "spec",
     "template", "metadata", "labels", "sidecar.istio.io/inject", name="stream-events-redis"),
     "get a sidecar"),
    (network.mesh_asks_who_comes, "istio", put("PERMISSIVE", "PeerAuthentication", "spec", "mtls",
     "mode"), "of the mesh"),
    (network.mesh_asks_who_comes, "istio", put({"mode": "DISABLE"}, "PeerAuthentication", "spec",
     "portLevelMtls", "8080"), "clear text"),
    (network.mesh_asks_who_comes, "istio", put(MISSING, "AuthorizationPolicy", "spec", "rules", 0,
     "from"), "anyone may"),
    (network.mesh_asks_who_comes, "istio", put(MISSING, "AuthorizationPolicy", "spec", "rules", 1,
     "to", 0, "operation", "paths"), "anyone may"),
    (network.mesh_asks_who_comes, "istio", without("AuthorizationPolicy"), "no list"),
]
NAMES = [
    (names.labels_select, "base", put({"app": "x"}, "NetworkPolicy", "spec", "podSelector",
     "matchLabels"), "NetworkPolicy is for pods with"),
    (names.labels_select, "gke-ingress", put("http", "PodMonitoring", "spec", "endpoints", 0,
     "port"), "metrics are not at"),
    (names.labels_select, "redis+prometheus", put({"app": "x"}, "PodMonitor", "spec", "selector",
     "matchLabels"), "PodMonitor is for pods with"),
    (names.labels_select, "redis+prometheus", put("http", "PodMonitor", "spec",
     "podMetricsEndpoints", 0, "port"), "metrics are not at"),
    (names.labels_select, SERVICE, put({"app": "x"}, "ServiceMonitor", "spec", "selector",
     "matchLabels"), "no Service with the port ops"),
    (names.labels_select, "redis+prometheus", also_service_monitor, "twice"),
    (names.labels_select, SERVICE, put("/", "ServiceMonitor", "spec", "endpoints", 0, "path"),
     "metrics are not at"),
    (names.labels_select, "redis", of_pod({"app": "x"}, "topologySpreadConstraints", 0,
     "labelSelector", "matchLabels"), "counts other pods"),
    (names.names_are_there, "base", without("ServiceAccount"), "no ServiceAccount"),
    (names.names_are_there, "gke-ingress", without("ManagedCertificate"), "ManagedCertificate"),
    (names.names_are_there, "base", of_pod("stream-events", "containers", 0, "envFrom", 0,
     "configMapRef", "name"), "no ConfigMap stream-events"),
    (names.names_are_there, "redis", put("redis", "StatefulSet", "spec", "template", "spec",
     "volumes", 0, "configMap", "name", name="stream-events-redis"), "no ConfigMap redis"),
    (names.names_are_there, "gke-gateway", put("other", "GCPGatewayPolicy", "spec", "targetRef",
     "name"), "Gateway other"),
    (names.names_are_there, "gke-ingress", annotated("other", "Ingress",
     "networking.gke.io/v1beta1.FrontendConfig"), "FrontendConfig other"),
    (names.names_are_there, "gke-gateway", put("gateway", "HealthCheckPolicy", "spec", "targetRef",
     "name"), "Service gateway"),
    (names.names_are_there, "gke-gateway", put("other", "HTTPRoute", "spec", "parentRefs", 0,
     "name"), "Gateway other"),
    (names.names_are_there, "istio", put("events", "DestinationRule", "spec", "host"),
     "Service events"),
    (names.hosts_agree, "gateway", put("other.example.com", "Gateway", "spec", "listeners", 0,
     "hostname"), "several names"),
    (names.hosts_agree, "gke-ingress", put(["other.example.com"], "ManagedCertificate", "spec",
     "domains"), "several names"),
]


def without_path(public):
    """Takes a public path out of what is in front, in whatever form it stands there."""
    names = {public.path, public.beginning, public.beginning + "*", public.beginning.rstrip("/")} - {""}

    def stays(item):
        """The form of a path in an Ingress, an HTTPRoute, a VirtualService, an AuthorizationPolicy."""
        match = item if isinstance(item, str) else item.get("path") or item.get("uri") or {}
        texts = [match] if isinstance(match, str) else match.values()
        return not names & set(texts)

    def prune(part):
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            if key in ("paths", "matches", "match"):
                part[key] = [item for item in value if stays(item)]
            elif isinstance(value, (dict, list)):
                prune(value)

    def change(docs):
        for doc in docs:
            if doc["kind"] in ("Ingress", "HTTPRoute", "VirtualService", "AuthorizationPolicy"):
                prune(doc["spec"])
    return change


MISSING_PATHS = [(network.only_public_paths, overlay, without_path(public), public.path)
                 for overlay in PUBLIC for public in PUBLIC_PATHS]
MISSING_PATHS += [(network.mesh_allows_public_paths, "istio", without_path(public),
                   f"{public.beginning or public.path}") for public in PUBLIC_PATHS]
ADDED_PATH = [(network.mesh_allows_public_paths, "istio", add("/metrics", "AuthorizationPolicy", "spec",
               "rules", 0, "to", 0, "operation", "paths"), "/metrics is allowed")]
CHANGES = STREAMS + NETWORK + NAMES + MISSING_PATHS + ADDED_PATH
