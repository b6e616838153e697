"""Ports for processes that have to be told theirs."""

import random
import socket

_given = set()


def _is_free(port):
    """Nobody has it, on any address: also a connection to 127.0.0.2 keeps a port from 0.0.0.0."""
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True


def free_ports(count):
    """The first of so many free ports in a row, which are given once. They are below those that the
    kernel gives to outgoing connections (ip_local_port_range, from 32,768): such a connection, or one
    that has just been closed, would keep the process from listening."""
    while True:
        base = random.randrange(10_000, 32_000)
        ports = range(base, base + count)
        if _given.isdisjoint(ports) and all(map(_is_free, ports)):
            _given.update(ports)
            return base


def free_port():
    return free_ports(1)
