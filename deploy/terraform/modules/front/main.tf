# A global external Application Load Balancer in front of Cloud Run: TLS, a certificate from Google,
# the public paths, and Cloud Armor.

locals {
  # deploy/README.md has the list. Paths end in /* where a name follows.
  paths = {
    events = [
      "/events",
      "/presence/*",
      "/publish/*",
      "/renew",
      "/ticket",
      "/grpc.health.v1.Health/*",
      "/grpc.reflection.v1.ServerReflection/*",
      "/grpc.reflection.v1alpha.ServerReflection/*",
      "/stream_events.v1.StreamEvents/*",
    ]
    push = ["/push", "/push/*"]
    ws   = ["/ws"]
  }
}

resource "google_project_service" "compute" {
  project            = var.project
  service            = "compute.googleapis.com"
  disable_on_destroy = false
}

resource "google_compute_region_network_endpoint_group" "cloud_run" {
  for_each              = var.services
  project               = var.project
  region                = var.region
  name                  = "${var.name}-${each.key}"
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = each.value
  }

  depends_on = [google_project_service.compute]
}

# No timeout_sec: Google refuses it in front of Cloud Run. A stream lasts as long as Cloud Run lets
# it (timeoutSeconds, 3600), and the gateway ends it before (STREAM_EVENTS_STREAM_AGE_MAX, 55 min).
# No health check either: Cloud Run has its own.
resource "google_compute_backend_service" "cloud_run" {
  for_each              = var.services
  project               = var.project
  name                  = "${var.name}-${each.key}"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  security_policy       = google_compute_security_policy.this.id

  backend {
    group = google_compute_region_network_endpoint_group.cloud_run[each.key].id
  }

  log_config {
    enable = true
    # One request in a hundred.
    sample_rate = 0.01
  }
}

# The rules of k8s/components/cloud-armor/create-policy.sh, which says why.
resource "google_compute_security_policy" "this" {
  project     = var.project
  name        = var.name
  description = "Stream Events: requests per address"

  # Pushes first, and without a limit: Pub/Sub pushes from few addresses. The gateway looks at the
  # token of each.
  rule {
    priority = 1000
    action   = "allow"
    match {
      expr {
        expression = "request.path == '/push' || request.path.startsWith('/push/')"
      }
    }
  }

  # Twice the gateway's own limit, so that the gateway answers first: a browser's EventSource gives
  # up for good at a 429 of Cloud Armor.
  rule {
    priority = 2000
    action   = "throttle"
    match {
      versioned_expr = "SRC_IPS_V1"
      config {
        src_ip_ranges = ["*"]
      }
    }
    rate_limit_options {
      conform_action = "allow"
      exceed_action  = "deny(429)"
      enforce_on_key = "IP"
      rate_limit_threshold {
        count        = 12000
        interval_sec = 60
      }
    }
  }

  # Google wants a last rule for all addresses. No request comes to it.
  rule {
    priority = 2147483647
    action   = "allow"
    match {
      versioned_expr = "SRC_IPS_V1"
      config {
        src_ip_ranges = ["*"]
      }
    }
  }

  depends_on = [google_project_service.compute]
}

# The public paths. The load balancer answers 404 to all other paths itself. (Google wants a service
# for them all the same.)
resource "google_compute_url_map" "this" {
  project         = var.project
  name            = var.name
  default_service = google_compute_backend_service.cloud_run["events"].id

  default_route_action {
    fault_injection_policy {
      abort {
        http_status = 404
        percentage  = 100
      }
    }
  }

  host_rule {
    hosts        = [var.domain]
    path_matcher = "paths"
  }

  path_matcher {
    name            = "paths"
    default_service = google_compute_backend_service.cloud_run["events"].id

    default_route_action {
      fault_injection_policy {
        abort {
          http_status = 404
          percentage  = 100
        }
      }
    }

    dynamic "path_rule" {
      for_each = google_compute_backend_service.cloud_run
      content {
        paths   = local.paths[path_rule.key]
        service = path_rule.value.id
      }
    }
  }
}
