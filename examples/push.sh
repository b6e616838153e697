#!/usr/bin/env bash
# Posts two messages to a gateway as a Pub/Sub push subscription would: one in Pub/Sub's envelope,
# one without. Exits with 1 when the gateway does not take one of them.
#
#   examples/push.sh [URL [TOPIC]]
set -euo pipefail

url=${1:-http://127.0.0.1:8080}
topic=${2:-orders}

subscription=projects/local/subscriptions/$topic
time=$(date -u +%Y-%m-%dT%H:%M:%SZ)
# A gateway shows a message id once: it takes a second one for a redelivery. So each run, and each of
# the two messages, has its own.
id=$(date +%s)$$$RANDOM

# push NAME CURL-ARGUMENT...
push() {
  local name=$1 answer status
  shift
  answer=$(curl --silent --show-error --max-time 30 --write-out '\n%{http_code}' "$@" \
    "${url%/}/push/$topic")
  status=${answer##*$'\n'}
  # 204 is the acknowledgement: the event is stored. After anything else Pub/Sub would push again.
  if [ "$status" != 204 ]; then
    printf '%s: the gateway answered %s: %s\n' "$name" "$status" "${answer%$'\n'*}" >&2
    exit 1
  fi
  echo "$name: 204"
}

# Wrapped, the default of Pub/Sub: the data is base64 (without the line ends that some base64 commands
# put in), and the fields below are there in two spellings.
data=$(printf '{"id":1,"text":"wrapped"}' | base64 | tr -d '\n')
push wrapped --header 'Content-Type: application/json' --data-binary @- <<JSON
{
  "message": {
    "data": "$data",
    "attributes": {"region": "eu"},
    "messageId": "${id}1", "message_id": "${id}1",
    "publishTime": "$time", "publish_time": "$time",
    "orderingKey": "customer-1"
  },
  "subscription": "$subscription"
}
JSON

# Unwrapped (--push-no-wrapper --push-no-wrapper-write-metadata): the body is the data as it is, and
# the rest is in headers, each attribute in one of its own name.
push unwrapped --header 'Content-Type: application/json' \
  --header "x-goog-pubsub-subscription-name: $subscription" \
  --header "x-goog-pubsub-message-id: ${id}2" \
  --header "x-goog-pubsub-publish-time: $time" \
  --header 'x-goog-pubsub-ordering-key: customer-1' \
  --header 'region: eu' \
  --data-binary '{"id":2,"text":"unwrapped"}'
