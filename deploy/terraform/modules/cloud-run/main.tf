# The services of docs/deploy/cloud-run.md and their Redis.

locals {
  redis_host = var.redis_host == "" ? google_redis_instance.log[0].host : var.redis_host
}

resource "google_project_service" "this" {
  for_each           = toset(["compute.googleapis.com", "redis.googleapis.com", "run.googleapis.com"])
  project            = var.project
  service            = each.value
  disable_on_destroy = false
}

# The log that all instances share.
resource "google_redis_instance" "log" {
  count              = var.redis_host == "" ? 1 : 0
  project            = var.project
  region             = var.region
  name               = var.name
  memory_size_gb     = 2
  redis_version      = "REDIS_7_2"
  authorized_network = "projects/${var.project}/global/networks/${var.network}"
  # With any other policy Redis may forget events that were acked; the gateway refuses it.
  redis_configs = { maxmemory-policy = "noeviction" }
  depends_on    = [google_project_service.this]
}

resource "google_cloud_run_v2_service" "this" {
  for_each = local.parts
  project  = var.project
  location = var.region
  name     = each.value.name
  ingress  = local.ingress[each.key]
  # Readers bring tokens that IAM does not know; the gateway checks them.
  invoker_iam_disabled = each.key != "push"
  # The services hold nothing that could be lost.
  deletion_protection = false

  template {
    service_account                  = var.gateway_account
    timeout                          = "${each.value.spec.timeoutSeconds}s"
    max_instance_request_concurrency = each.value.spec.containerConcurrency
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"

    scaling {
      min_instance_count = tonumber(each.value.notes["autoscaling.knative.dev/minScale"])
      max_instance_count = tonumber(each.value.notes["autoscaling.knative.dev/maxScale"])
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = var.network
        subnetwork = var.subnetwork
      }
    }

    containers {
      image = each.value.container.image

      ports {
        name           = each.value.port
        container_port = each.value.container.ports[0].containerPort
      }

      resources {
        limits = each.value.container.resources.limits
        # The gateway reads the log also while no request runs.
        cpu_idle = each.value.notes["run.googleapis.com/cpu-throttling"] == "true"
      }

      startup_probe {
        period_seconds    = each.value.container.startupProbe.periodSeconds
        timeout_seconds   = each.value.container.startupProbe.timeoutSeconds
        failure_threshold = each.value.container.startupProbe.failureThreshold
        http_get {
          path = each.value.container.startupProbe.httpGet.path
        }
      }

      liveness_probe {
        period_seconds    = each.value.container.livenessProbe.periodSeconds
        timeout_seconds   = each.value.container.livenessProbe.timeoutSeconds
        failure_threshold = each.value.container.livenessProbe.failureThreshold
        http_get {
          path = each.value.container.livenessProbe.httpGet.path
        }
      }

      dynamic "env" {
        for_each = local.settings[each.key]
        content {
          name  = env.key
          value = env.value
        }
      }
    }
  }

  depends_on = [google_project_service.this]
}

# Cloud Run checks the push tokens: the push account, and no other, may call this service.
resource "google_cloud_run_v2_service_iam_member" "calls_push" {
  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_service.this["push"].name
  role     = "roles/run.invoker"
  member   = "serviceAccount:${var.push_account}"
}
