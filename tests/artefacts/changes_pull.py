"""What a careless edit does to a gateway that pulls, and which rule must tell of it."""

import rules_network as network
import rules_public as public
import rules_pull as pull
from changing import MISSING, add, annotated, of_pod, put, setting

ACCOUNT = "iam.gke.io/gcp-service-account"
EGRESS = ("NetworkPolicy", "spec", "egress")
PUSH_PATH = {"path": "/push", "pathType": "Prefix",
             "backend": {"service": {"name": "stream-events", "port": {"name": "http"}}}}

# The rule, where, the change, and what the rule says then.
CHANGES = [
    (pull.subscriptions_have_topics, "base+pull", setting("PULL", "projects/p/subscriptions/orders"),
     "and its topic"),
    (pull.subscriptions_have_topics, "pull", setting("PULL", "orders=orders"), "a subscription"),
    (pull.pods_are_an_account, "base+pull", annotated(MISSING, "ServiceAccount", ACCOUNT), "no account"),
    (pull.pods_are_an_account, "gke-gateway+pull", of_pod([{"name": "GOOGLE_APPLICATION_CREDENTIALS",
     "value": "/key"}], "containers", 0, "env"), "a key file"),
    (pull.tokens_can_be_had, "base+pull", put(MISSING, *EGRESS, 2), "169.254.169.252/32 port 988"),
    (pull.tokens_can_be_had, "gke-ingress+redis+pull", put(MISSING, *EGRESS, 4),
     "169.254.169.254/32 port 80"),
    (pull.messages_come_in, "gke-ingress", setting("PUSH_AUTH", "off"), "no message comes in"),
    (public.outside_needs_tokens, "gke-ingress+pull", setting("PUSH_AUTH", "none"), "PUSH_AUTH is none"),
    (pull.tokens_leave_over_tls, "base+pull", setting("PULL_ENDPOINT", "http://pubsub.googleapis.com"),
     "not Google's"),
    # What the component opens, it opens for itself alone.
    (network.network_lets_out, "base+pull", setting("PULL", ""), "metadata server: 169.254.169.252/32"),
    (network.network_lets_out, "base+pull", add({"ports": [{"port": 80}]}, *EGRESS), "port 80"),
    (network.network_lets_out, "base+pull", add({"to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}],
     "ports": [{"port": 443}]}, *EGRESS), "metadata server: 169.254.169.254/32"),
    (network.only_public_paths, "gke-ingress+pull", add(PUSH_PATH, "Ingress", "spec", "rules", 0, "http",
     "paths"), "/push… can be reached"),
    (network.only_public_paths, "gke-ingress+pull", setting("PULL", ""), "/push cannot be reached"),
    (network.mesh_allows_public_paths, "istio+pull", add("/push", "AuthorizationPolicy", "spec", "rules",
     0, "to", 0, "operation", "paths"), "/push is allowed"),
]
