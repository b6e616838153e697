# Topics, their subscriptions for the gateway, the dead-letter topic, and the IAM roles.
# README.md has the reason of each number.

data "google_project" "this" {
  project_id = var.project
}

locals {
  # Pub/Sub's own account in this project. It pushes, signs tokens, and moves dead letters.
  pubsub = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_topic" "events" {
  for_each = setunion(var.topics, var.pull_topics)
  name     = each.value
}

# Whose token the pushes carry. It has no role but to call the service.
resource "google_service_account" "push" {
  account_id   = "pubsub-push"
  display_name = "Pub/Sub's pushes to Stream Events"
}

# What the gateway runs as. Its only role is roles/pubsub.subscriber on the subscriptions that it pulls.
resource "google_service_account" "gateway" {
  account_id   = "stream-events"
  display_name = "Stream Events"
}

# On GKE the pods are this account by Workload Identity (k8s/components/gke).
resource "google_service_account_iam_member" "pods_are_gateway" {
  count              = var.kubernetes_namespace == "" ? 0 : 1
  service_account_id = google_service_account.gateway.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.kubernetes_namespace}/stream-events]"
}

resource "google_pubsub_subscription" "push" {
  for_each = var.topics
  name     = "${each.value}-to-events"
  topic    = google_pubsub_topic.events[each.value].id

  ack_deadline_seconds       = 10
  message_retention_duration = "604800s"
  enable_message_ordering    = var.message_ordering

  # Never: by default a subscription that is quiet for 31 days is deleted.
  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "1s"
    maximum_backoff = "60s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 100
  }

  push_config {
    push_endpoint = "${var.endpoint}/${each.value}"

    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = var.audience == "" ? "${var.endpoint}/${each.value}" : var.audience
    }
  }

  lifecycle {
    precondition {
      condition     = var.endpoint != ""
      error_message = "topics are pushed: set endpoint, or name them in pull_topics instead."
    }
  }

  # Without them the first pushes fail, and the first dead letters are lost.
  depends_on = [
    google_service_account_iam_member.signs_tokens,
    google_pubsub_topic_iam_member.writes_dead_letters,
  ]
}

resource "google_pubsub_subscription" "pull" {
  for_each = var.pull_topics
  name     = "${each.value}-to-events-pull"
  topic    = google_pubsub_topic.events[each.value].id

  ack_deadline_seconds       = 10
  message_retention_duration = "604800s"
  enable_message_ordering    = var.message_ordering

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "1s"
    maximum_backoff = "60s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 100
  }

  depends_on = [google_pubsub_topic_iam_member.writes_dead_letters]
}

resource "google_pubsub_subscription_iam_member" "gateway_pulls" {
  for_each     = var.pull_topics
  subscription = google_pubsub_subscription.pull[each.value].id
  role         = "roles/pubsub.subscriber"
  member       = google_service_account.gateway.member
}

# Pub/Sub's service agent may make tokens of this one account, and of no other. Needed only where Pub/Sub
# was switched on by April 8, 2021: later projects have given the agent roles/pubsub.serviceAgent.
resource "google_service_account_iam_member" "signs_tokens" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.pubsub
}

resource "google_cloud_run_v2_service_iam_member" "calls_gateway" {
  count    = var.cloud_run_service == "" ? 0 : 1
  name     = var.cloud_run_service
  location = var.region
  role     = "roles/run.invoker"
  member   = google_service_account.push.member
}

resource "google_pubsub_topic" "dead_letters" {
  name = "stream-events-dead-letters"
}

# A topic without a subscription keeps nothing.
resource "google_pubsub_subscription" "dead_letters" {
  name                       = "stream-events-dead-letters"
  topic                      = google_pubsub_topic.dead_letters.id
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }
}

# https://cloud.google.com/pubsub/docs/dead-letter-topics#grant_forwarding_permissions
resource "google_pubsub_topic_iam_member" "writes_dead_letters" {
  topic  = google_pubsub_topic.dead_letters.id
  role   = "roles/pubsub.publisher"
  member = local.pubsub
}

resource "google_pubsub_subscription_iam_member" "acks_dead_letters" {
  for_each     = merge(google_pubsub_subscription.push, { for topic, pulled in google_pubsub_subscription.pull : "${topic} pulled" => pulled })
  subscription = each.value.id
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub
}
