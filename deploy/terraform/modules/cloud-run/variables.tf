variable "project" {
  description = "The ID of the Google Cloud project."
  type        = string
}

variable "project_number" {
  description = "The number of the project, which is in the URLs of the services."
  type        = string
}

variable "region" {
  description = "The region of the services and of Redis."
  type        = string
}

variable "name" {
  description = "The name of the service of streams, and what the names of the other services begin with."
  type        = string
  default     = "stream-events"

  validation {
    # Service and number are one label of a DNS name, which has 63 characters at most.
    condition     = can(regex("^[a-z][a-z0-9-]{0,20}[a-z0-9]$", var.name))
    error_message = "2 to 22 small letters, digits and hyphens are wanted, a letter first and no hyphen last."
  }
}

variable "image" {
  description = "The image, in Artifact Registry and for amd64 (../../README.md)."
  type        = string
}

variable "gateway_account" {
  description = "The address of the service account that the services run as."
  type        = string
}

variable "push_account" {
  description = "The address of the service account whose tokens the pushes carry."
  type        = string
}

variable "read_issuer" {
  description = "\"iss\" of the readers' tokens, as in https://issuer.example.com."
  type        = string
}

variable "read_audience" {
  description = "\"aud\" of the readers' tokens."
  type        = string
}

variable "read_jwks_url" {
  description = "Where the issuer has its keys. Empty: under the issuer, /.well-known/jwks.json."
  type        = string
  default     = ""
}

variable "redis_host" {
  description = "The address of a Redis on port 6379 that the network reaches. Empty: one is created."
  type        = string
  default     = ""
}

variable "network" {
  description = "The VPC network of Redis."
  type        = string
  default     = "default"
}

variable "subnetwork" {
  description = "The subnet from which the services reach Redis."
  type        = string
  default     = "default"
}

variable "websockets" {
  description = "Whether to run a third service, for WebSockets (/ws)."
  type        = bool
  default     = false
}

variable "behind_front" {
  description = "Whether readers come through a load balancer (modules/front) and in no other way."
  type        = bool
  default     = false
}

variable "settings" {
  description = "Further settings of the gateways that have readers, as in { STREAM_EVENTS_PUBLISH_AUTH = \"jwt\" }."
  type        = map(string)
  default     = {}
}
