"""`memory://broker/place`: brokers in this process, as a plugin's transport brings them."""

from __future__ import annotations

import threading
from collections import defaultdict

from shield import Envelope, ShieldError, Source, Taken, Transport, hookimpl
from shield.headers import BROKER, DESTINATION, MESSAGE_ID, RULE
from shield.url import URL


class Broker:
    """What one broker holds, place by place, and how it fails."""

    def __init__(self):
        self.places = defaultdict(list)
        self.missing = set()
        self.refusals = defaultdict(int)
        """How many more sends of a body fail."""
        self.on_send = lambda: None


class Memory(Transport):
    """Sends to a `Broker` and answers at once."""

    scheme = "memory"
    brokers: defaultdict[str, Broker] = defaultdict(Broker)

    def __init__(self, broker, place):
        self.broker = broker
        self.place = place
        self.roams = not place

    @classmethod
    def to(cls, url):
        return cls(cls.brokers[url.hosts], url.path)

    @classmethod
    def home(cls, url):
        return URL.parse(f"memory://{url.hosts}")

    @classmethod
    def source(cls, url):
        if url.path not in cls.brokers[url.hosts].places:
            raise ShieldError(f"{url}: there is no such place")
        return MemorySource(cls.brokers[url.hosts].places[url.path])

    def send(self, envelope, done):
        self.broker.on_send()
        place = self.place or envelope.destination
        if place in self.broker.missing:
            done(LookupError(f"{place} is not there"))
        elif self.broker.refusals[envelope.body]:
            self.broker.refusals[envelope.body] -= 1
            done(TimeoutError("no answer"))
        else:
            self.broker.places[place].append(envelope)
            done(None)

    def close(self, timeout_s):
        """Nothing to do."""


class MemorySource(Source):
    """Reads a list from its beginning; what is forgotten leaves it."""

    def __init__(self, held):
        self.held = held
        self.handed_out = set()
        self.lock = threading.Lock()

    def take(self, most, timeout_s):
        with self.lock:
            fresh = [e for e in self.held if id(e) not in self.handed_out][:most]
            self.handed_out.update(map(id, fresh))
            return [Taken(envelope, id(envelope)) for envelope in fresh]

    def forget(self, taken):
        with self.lock:
            self.held[:] = [e for e in self.held if id(e) != taken.position]

    def failed(self, taken):
        with self.lock:
            self.handed_out.discard(taken.position)

    def left(self):
        return sum(id(e) not in self.handed_out for e in self.held)

    def close(self):
        """Nothing to do."""


class Plugin:
    @hookimpl
    def shield_transports(self):
        return {"memory": Memory}


PLUGIN = Plugin()


def diverted(number, *, rule="orders", to="orders.created", key=None, attempt=1, **more):
    """Return a message as it stands where it was diverted to."""
    marks = {
        DESTINATION: to,
        RULE: rule,
        "shield-producer": more.pop("producer", "checkout"),
        "shield-attempt": str(attempt),
        MESSAGE_ID: f"id-{number}",
    }
    if "broker" in more:
        marks[BROKER] = more.pop("broker")
    return Envelope("overflow", b"%d" % number, "memory", key, marks=tuple(marks.items()), **more)
