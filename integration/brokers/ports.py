"""Ports for brokers that keep their address when they die and come back."""

import random
import socket

# Below the kernel's range for outgoing connections (32768 on Linux, 49152 elsewhere). A port in it
# can be taken by any client while the broker is down, even by the client that is trying to reach
# that very port: TCP then connects it to itself, and the broker cannot come back.
_LISTENING_PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """So many different ports of 127.0.0.1 on which nothing listens now."""
    candidates = random.sample(_LISTENING_PORTS, k=len(_LISTENING_PORTS))
    free = filter(_is_free, candidates)
    return [next(free) for _ in range(count)]


def _is_free(port: int) -> bool:
    with socket.socket() as candidate:
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
