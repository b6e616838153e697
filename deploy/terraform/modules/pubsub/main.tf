# Topics, their subscriptions for the gateway, the dead-letter topic, and the IAM roles.
# ../../README.md has the reason of each number.

locals {
  # Pub/Sub's own account in this project. It pushes, signs tokens, and moves dead letters.
  pubsub = "serviceAccount:service-${var.project_number}@gcp-sa-pubsub.iam.gserviceaccount.com"
  names  = setunion(var.topics, var.pull_topics)
  topics = { for name in local.names : name => var.create_topics ? google_pubsub_topic.events[name].id : "projects/${var.project}/topics/${name}" }
}

# Other users of the project may need the services: they stay on when this module is destroyed.
resource "google_project_service" "this" {
  for_each           = toset(["iam.googleapis.com", "pubsub.googleapis.com"])
  project            = var.project
  service            = each.value
  disable_on_destroy = false
}

# In a new project Pub/Sub's account does not exist until it is asked for, and can be given no role
# before that. https://cloud.google.com/iam/docs/create-service-agents
resource "google_project_service_identity" "pubsub" {
  provider   = google-beta
  project    = var.project
  service    = "pubsub.googleapis.com"
  depends_on = [google_project_service.this]
}

resource "google_pubsub_topic" "events" {
  for_each   = var.create_topics ? local.names : toset([])
  project    = var.project
  name       = each.value
  depends_on = [google_project_service.this]
}

# The account whose token the pushes carry. Its only role is to call the service.
resource "google_service_account" "push" {
  project      = var.project
  account_id   = var.push_account
  display_name = "Pub/Sub's pushes to Stream Events"
  depends_on   = [google_project_service.this]
}

# The account that the gateway runs as. Its only role is roles/pubsub.subscriber on the subscriptions that it pulls.
resource "google_service_account" "gateway" {
  project      = var.project
  account_id   = var.gateway_account
  display_name = "Stream Events"
  depends_on   = [google_project_service.this]
}

# On GKE the pods act as this account by Workload Identity (k8s/components/gke/kustomization.yaml).
resource "google_service_account_iam_member" "pods_are_gateway" {
  count              = var.kubernetes_namespace == "" ? 0 : 1
  service_account_id = google_service_account.gateway.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.kubernetes_namespace}/stream-events]"
}

resource "google_pubsub_subscription" "push" {
  for_each = var.topics
  project  = var.project
  name     = "${each.value}-to-${var.name}"
  topic    = local.topics[each.value]

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

  # Without these roles the first pushes fail, and the first dead letters are lost.
  depends_on = [
    google_service_account_iam_member.signs_tokens,
    google_pubsub_topic_iam_member.writes_dead_letters,
  ]
}

resource "google_pubsub_subscription" "pull" {
  for_each = var.pull_topics
  project  = var.project
  name     = "${each.value}-to-${var.name}-pull"
  topic    = local.topics[each.value]

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
  project      = var.project
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
  depends_on         = [google_project_service_identity.pubsub]
}

resource "google_pubsub_topic" "dead_letters" {
  project    = var.project
  name       = "${var.name}-dead-letters"
  depends_on = [google_project_service.this]
}

# A topic without a subscription keeps nothing.
resource "google_pubsub_subscription" "dead_letters" {
  project                    = var.project
  name                       = "${var.name}-dead-letters"
  topic                      = google_pubsub_topic.dead_letters.id
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }
}

# https://cloud.google.com/pubsub/docs/dead-letter-topics#grant_forwarding_permissions
resource "google_pubsub_topic_iam_member" "writes_dead_letters" {
  project    = var.project
  topic      = google_pubsub_topic.dead_letters.id
  role       = "roles/pubsub.publisher"
  member     = local.pubsub
  depends_on = [google_project_service_identity.pubsub]
}

resource "google_pubsub_subscription_iam_member" "acks_dead_letters" {
  for_each     = merge(google_pubsub_subscription.push, { for topic, pulled in google_pubsub_subscription.pull : "${topic} pulled" => pulled })
  project      = var.project
  subscription = each.value.id
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub
  depends_on   = [google_project_service_identity.pubsub]
}
