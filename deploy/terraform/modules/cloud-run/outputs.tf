output "urls" {
  description = "The URL of each service: events, push, and ws if there is one. Known before the services exist."
  value       = local.urls
}

output "push_endpoint" {
  description = "Where Pub/Sub pushes to, without the topic. Known before the service exists."
  value       = "${local.urls.push}/push"
}

output "services" {
  description = "The name of each service that readers connect to: events, and ws if there is one."
  value       = { for key, service in google_cloud_run_v2_service.this : key => service.name if key != "push" }
}
