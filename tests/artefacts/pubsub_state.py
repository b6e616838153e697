"""A subscription of the fake Pub/Sub: messages, leases, order within keys, and what has been acked.

It has no network. Times are seconds of time.time(), which is the clock of event ids too.
"""

import collections
import heapq
import time

# Messages of one ordering key that are delivered together. As Google does, the fake delivers no further
# ones of the key until all of them are acked.
KEY_BATCH = 5
# Limits of a response.
RESPONSE_MESSAGES = 500
RESPONSE_BYTES = 4_000_000


class Message:
    """A message. The data of a generated one is made when it is delivered."""

    __slots__ = ("id", "text", "size", "key", "attributes", "published", "attempt", "stream", "acked")

    def __init__(self, number, text, size, key, attributes):
        self.id, self.text, self.size, self.key = number, text, size, key
        self.attributes, self.published = attributes, time.time()
        # How often it has been delivered, which is a part of its ack id.
        self.attempt = 0
        # The stream that has its lease. None without a lease.
        self.stream = None
        self.acked = False

    def data(self):
        text = self.text.encode()
        return text + b"." * (self.size - len(text))


class Stream:
    """The part of a subscription that one stream has."""

    def __init__(self, lease, messages_max, bytes_max, client):
        self.lease, self.messages_max, self.bytes_max, self.client = lease, messages_max, bytes_max, client
        self.messages = self.bytes = 0

    def has_room(self, size):
        """Tells whether a message fits. A message larger than the limit of bytes is delivered alone."""
        return not (self.messages_max and self.messages >= self.messages_max
                    or self.bytes_max and self.messages and self.bytes + size > self.bytes_max)


class Subscription:
    def __init__(self, topic="", ordered=False, exactly_once=False, lease_max=60.0):
        self.topic, self.ordered, self.exactly_once, self.lease_max = topic, ordered, exactly_once, lease_max
        self.messages = []
        # Messages to be delivered, in order: those without a key, and those of each key.
        self.ready = collections.deque()
        self.keys = collections.defaultdict(collections.deque)
        # Keys with messages that may be delivered, and the messages of each key that have been.
        self.free_keys = collections.deque()
        self.batches = {}
        # (end, message, attempt) of each lease. An entry of an older attempt is void.
        self.leases = []
        self.ends = {}
        # (message's id, time, whether it counted) of each ack, in the order in which they came.
        self.acks = []
        # Seconds of the leases that the newest stream has asked for.
        self.lease = None
        self.counts = collections.Counter()

    def publish(self, text, size=0, key="", attributes=None):
        """Adds a message and returns its id."""
        message = Message(len(self.messages), text, max(size, len(text.encode())), key, attributes or {})
        self.messages.append(message)
        if self.ordered and key:
            self._offer(key, [message])
        else:
            self.ready.append(message)
        return message.id

    def _offer(self, key, messages, in_front=False):
        if in_front:
            self.keys[key].extendleft(reversed(messages))
        else:
            self.keys[key].extend(messages)
        if key not in self.batches and key not in self.free_keys:
            self.free_keys.append(key)

    def take(self, stream):
        """Leases the next messages to a stream, as many as it has room for."""
        taken, size = [], 0
        while len(taken) < RESPONSE_MESSAGES and size < RESPONSE_BYTES:
            if self.free_keys:
                key = self.free_keys[0]
                waiting = self.keys[key]
                if not stream.has_room(waiting[0].size):
                    break
                self.free_keys.popleft()
                batch = self.batches[key] = []
                while waiting and len(batch) < KEY_BATCH and stream.has_room(waiting[0].size):
                    batch.append(self._lease(waiting.popleft(), stream))
                taken += batch
                size += sum(message.size for message in batch)
            elif self.ready and stream.has_room(self.ready[0].size):
                message = self.ready.popleft()
                if not message.acked:
                    taken.append(self._lease(message, stream))
                    size += message.size
            else:
                break
        return taken

    def _lease(self, message, stream):
        message.attempt += 1
        message.stream = stream
        stream.messages += 1
        stream.bytes += message.size
        self.counts["deliveries"] += 1
        self.counts["redeliveries"] += message.attempt > 1
        self.counts["leased"] += 1
        self.counts["leased_most"] = max(self.counts["leased_most"], stream.messages)
        self.counts["bytes_most"] = max(self.counts["bytes_most"], stream.bytes)
        self._extend(message, min(stream.lease, self.lease_max))
        return message

    def _extend(self, message, seconds):
        end = self.ends[message.id] = time.time() + seconds
        heapq.heappush(self.leases, (end, message.id, message.attempt))

    def _of(self, ack_id):
        number, attempt = map(int, ack_id.split(":"))
        message = self.messages[number]
        return message, message.stream is not None and message.attempt == attempt

    def _release(self, message):
        stream, message.stream = message.stream, None
        self.ends.pop(message.id, None)
        if stream:
            stream.messages -= 1
            stream.bytes -= message.size
            self.counts["leased"] -= 1

    def ack(self, ack_id):
        """Acks a message. Returns whether the ack id was of a lease that has not ended."""
        message, is_current = self._of(ack_id)
        # An ack that comes late still counts, unless the subscription promises more than at least once.
        counts = is_current or not (self.exactly_once or self.ordered and message.key)
        self.acks.append((message.id, time.time(), counts))
        self.counts["acks" if is_current else "late_acks"] += 1
        if counts and not message.acked:
            message.acked = True
            self.counts["acked"] += 1
            self._release(message)
            self._settle(message.key)
        return is_current

    def _settle(self, key):
        """Lets the next messages of a key go when all of its batch are acked."""
        batch = self.batches.get(key)
        if batch is not None and all(message.acked for message in batch):
            del self.batches[key]
            if self.keys[key]:
                self.free_keys.append(key)

    def modify(self, ack_id, seconds):
        """Extends a lease, or ends it with 0, which is a nack. Returns whether the ack id is current."""
        message, is_current = self._of(ack_id)
        if is_current and seconds:
            self.counts["extensions"] += 1
            self._extend(message, min(seconds, self.lease_max))
        elif is_current:
            self.counts["nacks"] += 1
            self._again(message)
        return is_current

    def _again(self, message):
        """Delivers a message again, and those of its key that were delivered after it, acked or not."""
        batch = self.batches.get(message.key) if self.ordered else None
        if batch is None or message not in batch:
            self._release(message)
            self.ready.append(message)
            return
        at = batch.index(message)
        again = batch[at:]
        for later in again:
            self._release(later)
            self.counts["undone_acks"] += later.acked
            self.counts["acked"] -= later.acked
            later.acked = False
        del batch[at:]
        self._offer(message.key, again, in_front=True)
        self._settle(message.key)

    def expire(self):
        """Ends the leases that are over. Returns whether there were any."""
        now, any_ended = time.time(), False
        while self.leases and self.leases[0][0] <= now:
            end, number, attempt = heapq.heappop(self.leases)
            message = self.messages[number]
            if message.attempt == attempt and self.ends.get(number) == end:
                self.counts["expired"] += 1
                self._again(message)
                any_ended = True
        return any_ended

    def state(self):
        fields = ("deliveries", "redeliveries", "leased", "leased_most", "bytes_most", "acks", "late_acks",
                  "acked", "nacks", "expired", "extensions", "undone_acks", "streams", "streams_opened",
                  "denied", "unauthenticated", "lost_acks", "confirmed_failures")
        return {"published": len(self.messages), "lease": self.lease} | {name: self.counts[name] for name in fields}
