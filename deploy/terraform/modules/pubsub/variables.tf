variable "project" {
  description = "The ID of the Google Cloud project."
  type        = string
}

variable "project_number" {
  description = "The number of the project, which is in the name of Pub/Sub's service agent."
  type        = string
}

variable "name" {
  description = "What the names of subscriptions and of the dead-letter topic contain. Another name for a second gateway in the same project."
  type        = string
  default     = "stream-events"
}

variable "push_account" {
  description = "The service account to create for the tokens of pushes: the part of its address before @."
  type        = string
  default     = "stream-events-push"
}

variable "gateway_account" {
  description = "The service account to create for the gateway: the part of its address before @."
  type        = string
  default     = "stream-events-gateway"
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

variable "create_topics" {
  description = "Whether to create the topics. false: they are there already, in the same project."
  type        = bool
  default     = true
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
  description = "The audience of the push tokens: one of the gateway's --push-audience. Empty: each subscription's endpoint, as Cloud Run wants it."
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
