# Stream Events in one project: Pub/Sub, and, if wanted, the gateways on Cloud Run, a load balancer
# in front of them, and alerts. Each module can be used alone; README.md has an example.

# The number is in the address of Pub/Sub's service agent and in the URLs of Cloud Run.
data "google_project" "this" {
  project_id = var.project
}

module "pubsub" {
  source               = "./modules/pubsub"
  project              = var.project
  project_number       = data.google_project.this.number
  name                 = var.name
  push_account         = "${var.name}-push"
  gateway_account      = "${var.name}-gateway"
  topics               = var.topics
  pull_topics          = var.pull_topics
  create_topics        = var.create_topics
  endpoint             = var.image == "" ? var.endpoint : module.cloud_run[0].push_endpoint
  audience             = var.audience
  kubernetes_namespace = var.kubernetes_namespace
  message_ordering     = var.message_ordering
}

module "cloud_run" {
  source          = "./modules/cloud-run"
  count           = var.image == "" ? 0 : 1
  project         = var.project
  project_number  = data.google_project.this.number
  region          = var.region
  name            = var.name
  image           = var.image
  gateway_account = module.pubsub.gateway_account
  push_account    = module.pubsub.push_account
  read_issuer     = var.read_issuer
  read_audience   = var.read_audience
  read_jwks_url   = var.read_jwks_url
  redis_host      = var.redis_host
  websockets      = var.websockets
  behind_front    = var.domain != ""
}

module "front" {
  source   = "./modules/front"
  count    = var.image == "" || var.domain == "" ? 0 : 1
  project  = var.project
  region   = var.region
  name     = "${var.name}-front"
  domain   = var.domain
  services = module.cloud_run[0].services
}

module "alerts" {
  source                = "./modules/alerts"
  count                 = length(var.notification_channels) > 0 ? 1 : 0
  project               = var.project
  notification_channels = var.notification_channels
}
