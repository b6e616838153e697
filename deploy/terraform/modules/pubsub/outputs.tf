output "gateway_settings" {
  description = "The environment of a gateway that checks the push tokens itself."
  value = {
    STREAM_EVENTS_PUSH_AUTH            = "oidc"
    STREAM_EVENTS_PUSH_SERVICE_ACCOUNT = google_service_account.push.email
    STREAM_EVENTS_PUSH_AUDIENCE        = join(",", distinct([for s in google_pubsub_subscription.push : s.push_config[0].oidc_token[0].audience]))
  }
}

output "gateway_pull" {
  description = "The setting of a gateway that pulls."
  value       = { STREAM_EVENTS_PULL = join(",", [for topic, s in google_pubsub_subscription.pull : "${s.id}=${topic}"]) }
}

output "gateway_account" {
  description = "The service account that the gateway runs as."
  value       = google_service_account.gateway.email
}

output "push_account" {
  description = "The service account whose tokens the pushes carry."
  value       = google_service_account.push.email
}

output "dead_letters" {
  description = "Where to look for what could not be delivered: gcloud pubsub subscriptions pull."
  value       = google_pubsub_subscription.dead_letters.id
}
