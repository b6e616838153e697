variable "project" {
  description = "The ID of the Google Cloud project."
  type        = string
}

variable "name" {
  description = "What the names of all that is created begin with or contain. Another name for a second gateway in the same project."
  type        = string
  default     = "stream-events"

  validation {
    # A service account has 6 to 30 characters, and -gateway is added.
    condition     = can(regex("^[a-z][a-z0-9-]{0,20}[a-z0-9]$", var.name))
    error_message = "2 to 22 small letters, digits and hyphens are wanted, a letter first and no hyphen last."
  }
}

variable "region" {
  description = "The region of the Cloud Run services and of Redis."
  type        = string
  default     = "europe-west1"
}

variable "topics" {
  description = "The Pub/Sub topics whose messages are pushed to the gateway and streamed, each under its own name."
  type        = set(string)
  default     = []
}

variable "pull_topics" {
  description = "The Pub/Sub topics whose messages the gateway pulls (docs/pull.md). The gateway's account may pull their subscriptions."
  type        = set(string)
  default     = []
}

variable "create_topics" {
  description = "Whether to create the topics. false: they are there already, in the same project."
  type        = bool
  default     = true
}

variable "endpoint" {
  description = "Where a gateway that runs elsewhere takes pushes, without the topic, as in https://events.example.com/push. Empty: on Cloud Run, if there is an image."
  type        = string
  default     = ""
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

variable "image" {
  description = "The image for Cloud Run, in Artifact Registry and for amd64 (README.md). Empty: nothing runs on Cloud Run."
  type        = string
  default     = ""
}

variable "read_issuer" {
  description = "On Cloud Run: \"iss\" of the readers' tokens, as in https://issuer.example.com."
  type        = string
  default     = ""
}

variable "read_audience" {
  description = "On Cloud Run: \"aud\" of the readers' tokens."
  type        = string
  default     = ""
}

variable "read_jwks_url" {
  description = "On Cloud Run: where the issuer has its keys. Empty: under the issuer, /.well-known/jwks.json."
  type        = string
  default     = ""
}

variable "redis_host" {
  description = "On Cloud Run: the address of a Redis on port 6379. Empty: one is created."
  type        = string
  default     = ""
}

variable "websockets" {
  description = "On Cloud Run: whether to run a service for WebSockets too."
  type        = bool
  default     = false
}

variable "domain" {
  description = "On Cloud Run: the name of a load balancer in front, as in events.example.com. Empty: none, readers connect to Cloud Run."
  type        = string
  default     = ""
}

variable "notification_channels" {
  description = "The channels of Cloud Monitoring that alerts are sent to, as in projects/PROJECT/notificationChannels/ID. Empty: no alerts and no dashboard."
  type        = list(string)
  default     = []
}
