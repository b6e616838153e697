"""What holds whatever happens: acks come after the log has the message, and events come once and in order."""

import collections


def problems(acks, events, published, ordered_keys=0):
    """Tells what is wrong with the events that a reader got, beside the acks that the fake got.

    The text of message N begins with "N|". With `ordered_keys`, message N has key N modulo that number.
    """
    numbers = [int(data.split(b"|", 1)[0]) for _, data in events]
    times = dict(zip(numbers, (int(event_id.split("-")[0]) for event_id, _ in events)))
    for number, count in collections.Counter(numbers).items():
        if count > 1:
            yield f"message {number} came {count} times"
    for number in range(published):
        if number not in times:
            yield f"message {number} never came"
    for number, at, counted in acks:
        if number not in times:
            yield f"message {number} is acked and lost"
        # The time in an id is when the log took the event.
        elif counted and at < times[number]:
            yield f"message {number} was acked {times[number] - at} ms before the log had it"
    newest = {}
    for number in numbers if ordered_keys else []:
        key = number % ordered_keys
        if newest.get(key, -1) > number:
            yield f"message {number} of key {key} came after {newest[key]}"
        newest[key] = number


def check(test, pubsub, events, published, ordered_keys=0):
    found = list(problems(pubsub.acks(), events, published, ordered_keys))
    test.assertEqual(found[:5], [], f"{len(found)} problems")
