"""`kafka://` as a place for messages of any client. kafka-python is imported when it connects."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from shield import URL, Envelope, Outcome, ShieldError, Source, Transport
from shield.algorithms.backoff import Backoff
from shield.provisioning import Provisioner
from shield.retention import Retention
from shield.transport import Done
from shield_kafka.client.address import FORM, KafkaAddress, address_of

if TYPE_CHECKING:
    from shield_kafka.remote.bare_producer import BareProducerSender

log = logging.getLogger("shield.kafka")
LOG_EVERY_S = 60.0
PAUSE_S = 1.0
"""The shortest time between two attempts to connect."""
CLUSTER = ""
Waiting = tuple[Envelope, Done]


class KafkaTransport(Transport):
    """Sends to one topic of a Kafka cluster, or, without a topic, each message to its own.

    It connects with the first message, on a thread of its own that ends when that is done; what
    comes meanwhile waits for it, in order, five seconds and two for the topic. While the cluster
    does not answer, or the topic is not there, sends fail at once; it tries again in the
    background, when there is something to send, with full-jitter backoff. A send that the cluster
    has taken and not answered fails after twenty seconds.
    """

    scheme = "kafka"
    form = FORM

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self.origin = address.origin
        self.roams = not address.topic
        self._lock = threading.Lock()
        self._waiting: list[Waiting] = []
        self._sender: BareProducerSender | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._refused: dict[str, tuple[float, Exception]] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._logged_s = float("-inf")

    @classmethod
    def to(cls, url: URL) -> Transport:
        """Return one for a URL."""
        return cls(address_of(url))

    @classmethod
    def source(cls, url: URL) -> Source:
        """Return what reads the URL's topic, as a member of the consumer group of all redrives."""
        address = address_of(url)
        if not address.topic:
            raise ValueError(f"{url} names no topic to read; allowed is {FORM}")
        from shield_kafka.remote.source import TopicSource

        return TopicSource(address)

    @classmethod
    def home(cls, url: URL) -> URL:
        """Return the cluster."""
        return replace(url, path="")

    @classmethod
    def setup(cls, url: URL, partitions: int | None) -> tuple[Provisioner, str]:
        """Return what makes topics on the URL's cluster, and the URL's topic."""
        from shield_kafka.operations.provisioning import KafkaProvisioner

        address = address_of(url)
        return KafkaProvisioner(address, partitions), address.topic

    def keeps(self, envelope: Envelope) -> Retention | None:
        """Return what its topic keeps, or the envelope's own."""
        from shield_kafka.operations.retention import TopicRetention

        return TopicRetention(self._address).of(self._address.topic or envelope.destination)

    # --- sending --------------------------------------------------------------------------------

    def send(self, envelope: Envelope, done: Done) -> None:
        """Send with key, headers and timestamp; also those that Kafka has no field for."""
        topic = self._address.topic or envelope.destination
        with self._lock:
            sender, refusal = self._sender, self._refusal(topic)
            ready = sender is not None and self._thread is None and sender.knows(topic, envelope)
            if refusal is None and not ready:
                self._waiting.append((envelope, done))
                self._connect_soon()
                return
        if refusal is not None:
            done(refusal)
        else:
            assert sender is not None
            sender.send(topic, envelope, done)

    def _refusal(self, topic: str) -> Exception | None:
        """Return why nothing can be sent there for now: it was tried a moment ago."""
        if self._closed:
            return ShieldError(f"what sends to {self.origin} is closed")
        now = time.monotonic()
        for what in (CLUSTER, topic):
            until, error = self._refused.get(what, (0.0, None))
            if now < until:
                return error
        return None

    def outcome_of(self, error: Exception) -> Outcome:
        """Tell overload from all other errors, as for a producer's own sends."""
        from shield_kafka.client.errors import outcome_of

        return outcome_of(error)

    def is_hopeless(self, error: Exception) -> bool:
        """Tell what is wrong with the message from what is wrong with the cluster, or a topic."""
        from shield_kafka.client.errors import FAULTY

        return isinstance(error, FAULTY)

    is_faulty = is_hopeless

    # --- connecting -----------------------------------------------------------------------------

    def _connect_soon(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._connect, name="shield-kafka-connect", daemon=True
            )
            self._thread.start()

    def _connect(self) -> None:
        """Send what waits, as far as its topics are there, until nothing waits any more."""
        while True:
            with self._lock:
                waiting, self._waiting = self._waiting, []
                if not waiting:
                    self._thread = None
                    return
            for envelope, done in waiting:
                self._send_now(envelope, done)

    def _send_now(self, envelope: Envelope, done: Done) -> None:
        topic = self._address.topic or envelope.destination
        try:
            error = self._refusal(topic) or self._connected() or self._learned(topic, envelope)
        except Exception as crashed:
            error = self._refuse(topic, crashed)
        if error is not None:
            done(error)
        else:
            assert self._sender is not None
            self._sender.send(topic, envelope, done)

    def _connected(self) -> Exception | None:
        """Have a sender; return why that cannot be."""
        from shield_kafka.remote.bare_producer import BareProducerSender

        if self._sender is not None:
            return None
        try:
            sender = BareProducerSender(self._address)
        except ShieldError as error:
            return self._refuse(CLUSTER, error)
        with self._lock:
            self._sender = sender
            closed = self._closed
        if closed:
            sender.close(0.0)
        return self._refusal(CLUSTER)

    def _learned(self, topic: str, envelope: Envelope) -> Exception | None:
        """Have the sender know the topic; return why that cannot be."""
        sender = self._sender
        assert sender is not None
        if sender.knows(topic, envelope) or sender.learn(topic, envelope):
            self._backoffs.clear()
            return None
        return self._refuse(topic, ShieldError(f"topic {topic} is not there on {self.origin}"))

    def _refuse(self, what: str, error: Exception) -> Exception:
        """Note that there is no way now, and until when it need not be tried again."""
        now = time.monotonic()
        pause_s = PAUSE_S + self._backoffs.setdefault(what, Backoff()).next_s()
        self._refused[what] = now + pause_s, error
        if now - self._logged_s >= LOG_EVERY_S:
            self._logged_s = now
            log.warning("%s; messages for it go on in their chains", error)
        return error

    # --- closing --------------------------------------------------------------------------------

    def close(self, timeout_s: float) -> None:
        """Return when every send has ended; fail what is left when the time is over."""
        deadline = time.monotonic() + timeout_s
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        with self._lock:
            self._closed = True
            left, self._waiting = self._waiting, []
            sender = self._sender
        for _, done in left:
            done(ShieldError(f"closed before {self.origin} was connected"))
        if sender is not None:
            sender.close(max(0.0, deadline - time.monotonic()))
