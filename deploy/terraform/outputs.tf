output "gateway_settings" {
  description = "The environment of a gateway that checks the push tokens itself."
  value       = module.pubsub.gateway_settings
}

output "gateway_pull" {
  description = "The setting of a gateway that pulls."
  value       = module.pubsub.gateway_pull
}

output "gateway_account" {
  description = "The service account that the gateway runs as."
  value       = module.pubsub.gateway_account
}

output "dead_letters" {
  description = "Where to look for what could not be delivered: gcloud pubsub subscriptions pull."
  value       = module.pubsub.dead_letters
}

output "urls" {
  description = "The URLs of the Cloud Run services."
  value       = one(module.cloud_run[*].urls)
}

output "front" {
  description = "The load balancer's URL, and the address that the A record of its domain points to."
  value       = one([for front in module.front : { url = front.url, address = front.address }])
}
