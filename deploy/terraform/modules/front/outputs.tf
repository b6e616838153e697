output "address" {
  description = "The address that the A record of the domain points to."
  value       = google_compute_global_address.this.address
}

output "url" {
  description = "Where readers connect to, once the certificate is issued."
  value       = "https://${var.domain}"
}
