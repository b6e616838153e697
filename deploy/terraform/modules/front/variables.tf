variable "project" {
  description = "The ID of the Google Cloud project."
  type        = string
}

variable "region" {
  description = "The region of the Cloud Run services."
  type        = string
}

variable "name" {
  description = "The name of the load balancer's parts, and what the names of some begin with."
  type        = string
  default     = "stream-events-front"
}

variable "domain" {
  description = "The name that readers connect to, as in events.example.com. Its A record points to the output address."
  type        = string
}

variable "services" {
  description = "The Cloud Run services: events; ws, to which /ws goes; push, to which /push goes if its gateway checks the push tokens itself. A path without its service is answered with 404."
  type        = map(string)

  validation {
    condition     = contains(keys(var.services), "events") && length(setsubtract(keys(var.services), ["events", "push", "ws"])) == 0
    error_message = "The key events is wanted; push and ws are possible."
  }
}
