# Alerts and a dashboard in Cloud Monitoring. The rules are those of Prometheus, and the panels those
# of Grafana, so that there is one text of each. Both need the metrics of the pods in Managed Service
# for Prometheus (k8s/components/gke).

locals {
  rules  = yamldecode(file("${path.module}/../../../../k8s/components/prometheus/rules.yaml")).spec.groups[0].rules
  panels = jsondecode(file("${path.module}/../../../grafana/dashboard.json")).panels
}

resource "google_project_service" "monitoring" {
  project            = var.project
  service            = "monitoring.googleapis.com"
  disable_on_destroy = false
}

resource "google_monitoring_alert_policy" "alert" {
  for_each              = { for rule in local.rules : rule.alert => rule }
  project               = var.project
  display_name          = each.key
  combiner              = "OR"
  severity              = upper(each.value.labels.severity)
  notification_channels = var.notification_channels

  conditions {
    display_name = each.value.annotations.summary
    condition_prometheus_query_language {
      query               = each.value.expr
      duration            = each.value.for
      evaluation_interval = "60s"
      alert_rule          = each.key
      rule_group          = "stream-events"
      # Otherwise Google refuses a rule whose metric no gateway has sent yet.
      disable_metric_validation = true
    }
  }

  documentation {
    content = "${each.value.annotations.summary}. What to do: ${each.value.annotations.runbook}"
  }

  depends_on = [google_project_service.monitoring]
}

resource "google_monitoring_dashboard" "this" {
  project = var.project
  dashboard_json = jsonencode({
    displayName = "Stream Events"
    mosaicLayout = {
      columns = 24
      tiles = [for panel in local.panels : {
        xPos   = panel.gridPos.x
        yPos   = panel.gridPos.y
        width  = panel.gridPos.w
        height = panel.gridPos.h
        widget = {
          title = panel.title
          xyChart = {
            dataSets = [for target in panel.targets : {
              plotType        = "LINE"
              timeSeriesQuery = { prometheusQuery = target.expr }
            }]
          }
        }
      }]
    }
  })

  depends_on = [google_project_service.monitoring]
}
