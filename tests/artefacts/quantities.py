"""Times and sizes, as the gateway, Kubernetes and nginx write them."""

import re

SECONDS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "min": 60, "h": 3600}
BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30,
         "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30,
         "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
         "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}  # As nginx and redis.conf mean them.


def seconds(text):
    """'55 min', '3600s', '1h30m', '60' or 60."""
    parts = re.findall(r"([0-9.]+) *([a-z]*)", str(text))
    if not parts:
        raise ValueError(f"{text!r} is not a time")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def cores(text):
    """'250m' or '2', of CPU."""
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def size(text):
    """'512 MiB', '2Gi', '1200mb', '16m' or 1024."""
    match = re.fullmatch(r"([0-9.]+) *([A-Za-z]*)", str(text))
    if not match:
        raise ValueError(f"{text!r} is not a size")
    return float(match[1]) * BYTES[match[2].lower()]
