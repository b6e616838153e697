#!/usr/bin/env bash
# Creates the Cloud Armor policy "stream-events", which kustomization.yaml gives to the load
# balancer. Run it once for each project; it acts on gcloud's current project.
#
#   k8s/components/cloud-armor/create-policy.sh
set -euo pipefail

gcloud compute security-policies create stream-events \
    --description="Stream Events: requests per address"

# Pushes first, and without a limit: Pub/Sub pushes from few addresses, and all of them together
# push as fast as messages come. The gateway looks at the token of each push, and limits failed
# ones.
gcloud compute security-policies rules create 1000 \
    --security-policy=stream-events \
    --expression="request.path == '/push' || request.path.startsWith('/push/')" \
    --action=allow

# Everything else: 12,000 requests a minute of one address, twice the gateway's own limit
# (STREAM_EVENTS_REQUESTS_PER_ADDRESS, 100 a second). So the gateway answers first: it tells an
# EventSource to come back later. A 429 of Cloud Armor would make it give up for good.
gcloud compute security-policies rules create 2000 \
    --security-policy=stream-events \
    --src-ip-ranges="*" \
    --action=throttle \
    --rate-limit-threshold-count=12000 \
    --rate-limit-threshold-interval-sec=60 \
    --conform-action=allow \
    --exceed-action=deny-429 \
    --enforce-on-key=IP
