variable "project" {
  description = "The Google Cloud project."
  type        = string
}

variable "region" {
  description = "The region of the Cloud Run service."
  type        = string
  default     = "europe-west1"
}

variable "topics" {
  description = "The Pub/Sub topics whose messages are pushed to the gateway and streamed, each under its own name."
  type        = set(string)
  default     = []

  validation {
    # The grammar of Pub/Sub's resource names: https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
    condition     = alltrue([for name in var.topics : can(regex("^[a-zA-Z][a-zA-Z0-9._~%+-]{2,254}$", name)) && !startswith(name, "goog")])
    error_message = "A topic's name begins with a letter, has 3 to 255 characters and does not begin with goog."
  }
}

variable "pull_topics" {
  description = "The Pub/Sub topics whose messages the gateway pulls (docs/pull.md). The gateway's account may pull their subscriptions."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.pull_topics : can(regex("^[a-zA-Z][a-zA-Z0-9._~%+-]{2,254}$", name)) && !startswith(name, "goog")])
    error_message = "A topic's name begins with a letter, has 3 to 255 characters and does not begin with goog."
  }
}

variable "endpoint" {
  description = "Where the gateway takes pushes, without the topic, as in https://events.example.com/push. Empty: no topic is pushed."
  type        = string
  default     = ""

  validation {
    # Pub/Sub pushes to https with a public certificate only.
    condition     = var.endpoint == "" || can(regex("^https://[^/]+/push$", var.endpoint))
    error_message = "https://HOST/push is wanted."
  }
}

variable "audience" {
  description = "What the push tokens are for: one of the gateway's --push-audience. Empty: each subscription's endpoint, as Cloud Run wants it."
  type        = string
  default     = ""
}

variable "cloud_run_service" {
  description = "The Cloud Run service that checks the push tokens itself (deploy/cloud-run/push.yaml). Empty: none, the gateway does."
  type        = string
  default     = ""
}

variable "kubernetes_namespace" {
  description = "The namespace of the pods on GKE, whose ServiceAccount stream-events acts as the gateway's account. Empty: none."
  type        = string
  default     = ""
}

variable "message_ordering" {
  description = "Whether messages of one ordering key come in order, one at a time. Cannot be changed later."
  type        = bool
  default     = false
}

variable "notification_channels" {
  description = "The channels of Cloud Monitoring that alerts are sent to, as in projects/PROJECT/notificationChannels/ID. Empty: no alerts and no dashboard."
  type        = list(string)
  default     = []
}
