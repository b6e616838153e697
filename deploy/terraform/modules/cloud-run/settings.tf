# The services, read from deploy/cloud-run/*.yaml, so that each number stands in one place.
# docs/deploy/cloud-run.md has the reason of each number.

locals {
  # The files have these variables for envsubst. Values of resources that do not exist yet are empty
  # here, and set further below.
  text = {
    IMAGE         = var.image
    READ_AUDIENCE = var.read_audience
    READ_ISSUER   = var.read_issuer
    READ_JWKS_URL = var.read_jwks_url == "" ? "${trimsuffix(var.read_issuer, "/")}/.well-known/jwks.json" : var.read_jwks_url
    PUSH_ACCOUNT  = ""
    REDIS_HOST    = ""
    RUN_ACCOUNT   = ""
  }
  events = yamldecode(templatefile("${path.module}/../../../cloud-run/events.yaml", local.text))
  push   = yamldecode(templatefile("${path.module}/../../../cloud-run/push.yaml", local.text))

  # Streams and gRPC need HTTP/2 end to end. WebSockets do not pass it, so they have their own service.
  services = merge(
    { events = { name = var.name, port = "h2c", yaml = local.events } },
    { push = { name = "${var.name}-push", port = "h2c", yaml = local.push } },
    var.websockets ? { ws = { name = "${var.name}-ws", port = "http1", yaml = local.events } } : {},
  )

  parts = {
    for key, service in local.services : key => {
      name      = service.name
      port      = service.port
      notes     = service.yaml.spec.template.metadata.annotations
      spec      = service.yaml.spec.template.spec
      container = service.yaml.spec.template.spec.containers[0]
    }
  }

  backplane = { STREAM_EVENTS_BACKPLANE = "redis://${local.redis_host}:6379" }
  readers = merge(
    local.backplane,
    { STREAM_EVENTS_PUSH_SERVICE_ACCOUNT = var.push_account },
    # The load balancer adds its own address too.
    var.behind_front ? { STREAM_EVENTS_TRUSTED_PROXIES = "2" } : {},
    var.settings,
  )
  settings = {
    for key, service in local.services : key => merge(
      { for entry in service.yaml.spec.template.spec.containers[0].env : entry.name => entry.value },
      key == "push" ? local.backplane : local.readers,
    )
  }

  # If there is a load balancer, readers may not go around it and its limits. Pub/Sub of the same
  # project counts as internal.
  public  = var.behind_front ? "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER" : "INGRESS_TRAFFIC_ALL"
  ingress = { for key in keys(local.services) : key => key == "push" ? "INGRESS_TRAFFIC_INTERNAL_ONLY" : local.public }

  # https://cloud.google.com/run/docs/triggering/https-request#deterministic
  urls = { for key, service in local.services : key => "https://${service.name}-${var.project_number}.${var.region}.run.app" }
}
