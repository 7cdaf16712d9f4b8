"""One overflow destination that is redriven by itself, while the rules refuse nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from shield.accounts import End
from shield.algorithms.backoff import Backoff
from shield.config.redrive_allow import RedriveAllow
from shield.envelope import Envelope
from shield.errors import ShieldError
from shield.plugin_results import text_of
from shield.redriving.expiry import ExpiryCheck
from shield.redriving.filter import FilteredSource, Park, parking, without_broker
from shield.redriving.worker import Redriver, key_on_any
from shield.retention import Retention
from shield.selection import Selection
from shield.transport import Done, Source, Transport, is_open
from shield.url import URL, is_url
from shield.verdict import Engine, Outcome

if TYPE_CHECKING:
    from shield.rule import Rule

log = logging.getLogger("shield")

QUIET_S = 5.0
LONGEST_QUIET_S = 60.0
"""How long the rules must have refused nothing before it begins: twice as long after each time
that it was cut short, up to a minute."""
STEADY_S = 30.0
"""How long it must go without a refusal to begin after the shortest quiet again."""
SLOWEST = 20.0
FASTEST = 50_000.0
FASTER = 1.5
"""Messages a second it begins with and grows to, and by how much each second. A refusal halves it,
so that its own load does not bring the pressure back that it waited to be gone."""
WINDOW = 200
CLOSE_WITHIN_S = 30.0
"""How long what is sent may go unanswered once it is to end."""
TURN_S = 0.5
"""How long one turn takes at the most, where other ways back wait for theirs."""
LOG_EVERY_S = 60.0
_CLIENTS = URL("clients", "", "")
"""Stands for the clients' broker: each message is sent by one of its own."""


class PressureGate:
    """Whether rules refuse, with hysteresis: quick to say so, slow to say that it is over."""

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = rules
        self.quiet_s = QUIET_S
        self._since_s = float("-inf")
        """When the present quiet was first relied on."""

    def is_quiet(self, now: float) -> bool:
        """Tell whether they have refused nothing for long enough."""
        return all(now - rule.refused_s >= self.quiet_s for rule in self.rules)

    def begin(self, now: float) -> None:
        """Rely on the quiet from now on."""
        self._since_s = now

    @property
    def is_back(self) -> bool:
        """Whether a rule has refused since."""
        return any(rule.refused_s >= self._since_s for rule in self.rules)

    def end(self, now: float) -> None:
        """Ask for a longer quiet next time, or for the shortest after a steady run."""
        steady = now - self._since_s >= STEADY_S
        self.quiet_s = QUIET_S if steady else min(LONGEST_QUIET_S, self.quiet_s * 2)


class RedrivePace:
    """Messages a second: from slow to fast while nothing is refused, half of it after that."""

    def __init__(self) -> None:
        self._start = SLOWEST
        self._begun_s = 0.0

    def begin(self, now: float) -> None:
        """Start to grow."""
        self._begun_s = now

    def at(self, now: float) -> float:
        """Return how fast it may go by now."""
        grown: float = self._start * FASTER ** min(60.0, now - self._begun_s)
        return min(FASTEST, grown)

    def halve(self, now: float) -> None:
        """Begin the next time with half of what it was."""
        self._start = max(SLOWEST, self.at(now) / 2)


class OverflowingClients(Transport):
    """The clients whose messages come back; each goes to one of the broker it was going to."""

    scheme = "clients"
    roams = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: list[Transport] = []
        self._known: list[Transport] = []
        """Also those that are gone, or closed, and have not said so."""

    def add(self, client: Transport) -> None:
        """Take one more."""
        with self._lock:
            self._clients.append(client)
            self._known.append(client)

    def leaves(self, client: Transport) -> bool:
        """Take one away; tell whether it was here, or is forgotten since it was closed."""
        with self._lock:
            self._clients = [other for other in self._clients if other is not client]
            known, self._known = self._known, [one for one in self._known if one is not client]
            return len(known) > len(self._known)

    @property
    def first(self) -> Transport | None:
        """One that can send; those whose clients are gone are forgotten."""
        with self._lock:
            self._clients = [client for client in self._clients if is_open(client)]
            return self._clients[0] if self._clients else None

    @property
    def origins(self) -> tuple[str, ...]:
        """Which brokers they send to."""
        with self._lock:
            return tuple(sorted({client.origin for client in self._clients}))

    def _for(self, broker: str | None) -> Transport | None:
        with self._lock:
            for client in self._clients:
                if broker in (None, client.origin):
                    return client
        return None

    def send(self, envelope: Envelope, done: Done) -> None:
        """Send through the first client of its broker."""
        client = self._for(envelope.broker)
        if client is None:
            done(ShieldError("its client is gone"))
        else:
            client.send(without_broker(envelope), done)

    def keeps(self, envelope: Envelope) -> Retention | None:
        """Ask the client that would send it."""
        client = self._for(envelope.broker)
        return None if client is None else client.keeps(envelope)

    def outcome_of(self, error: Exception) -> Outcome:
        """Ask a client."""
        client = self._for(None)
        return Outcome.FAILED if client is None else client.outcome_of(error)

    def close(self, timeout_s: float) -> None:
        """Do nothing: they are their users'."""


class RedriveSession:
    """One overflow destination: opened when its rules are quiet, closed when they refuse again.

    Used by one thread, but for `add`, `remove` and `end_soon`.
    """

    def __init__(
        self,
        engine: Engine,
        rule: Rule,
        source: Callable[[Transport], Source],
    ) -> None:
        self.clients = OverflowingClients()
        self._late = ExpiryCheck(self.clients.keeps)
        self.pressure = PressureGate([rule])
        self.ended = threading.Event()
        self._engine = engine
        self._clock = engine.clock
        self._open_source = source
        self._park = self._parking(rule, engine.settings.redrive_park)
        self._allowance = RedriveAllow(
            engine.rules,
            engine.settings.redrive_allow,
            home=_CLIENTS,
            home_of=lambda url: engine.registry.transport(url.scheme).home(url),
            reaches=engine.registry.reaches,
            never=self._leads_back,
        )
        self._pace = RedrivePace()
        self._source: FilteredSource | None = None
        self._redriver: Redriver | None = None
        self._backoff = Backoff(1.0, 60.0)
        self._retry_s = float("-inf")
        self._logged_s = float("-inf")
        self._turn_ends_s = float("inf")
        self._origins: tuple[str, ...] = ()
        self._paused = False
        """Whether it waits for the rules to be quiet again, with the source open."""
        self._ending = False

    def _parking(self, rule: Rule, park: str | None) -> Park | None:
        if park is None:
            return None
        if is_url(park):
            return parking(rule.transport(URL.parse(park)), None)
        return parking(self.clients, park)

    # --- from any thread ------------------------------------------------------------------------

    def end_soon(self) -> None:
        """Have its thread end it."""
        self._ending = True
        redriver = self._redriver
        if redriver is not None:
            redriver.wake()

    @property
    def ending(self) -> bool:
        """Whether it is to end: it was told so, or its last client is gone."""
        return self._ending or self.clients.first is None

    # --- its thread -----------------------------------------------------------------------------

    def turn(self, *, alone: bool) -> bool:
        """Bring some back where the rules are quiet; False where there was nothing to be done."""
        now = self._clock.now()
        if self._redriver is None:
            return self.pressure.is_quiet(now) and now >= self._retry_s and self._begin(now)
        if self._paused:
            self._redriver.pick_up()
            return self.pressure.is_quiet(now) and self._resume(now)
        if self.pressure.is_back:
            self._pause(now)
            return False
        if self._origins != self.clients.origins:
            self.close()  # and begin anew, with what the new client can send
            return True
        if self._redriver.pause_s > 0:
            return False
        self._turn_ends_s = float("inf") if alone else now + TURN_S
        self._redriver.set_rate(self._pace.at(now))
        try:
            return self._redriver.step() or not self._redriver.idle
        except Exception as error:
            self._failed(now, error)
            return False

    def _begin(self, now: float) -> bool:
        client = self.clients.first
        if client is None:
            return False
        self._origins = self.clients.origins
        try:
            self._source = self._picked(self._open_source(client))
        except Exception as error:
            self._failed(now, error)
            return False
        self._backoff.reset()
        self._redriver = Redriver(
            self._source,
            self.clients,
            self._engine.admit,
            failed_as=End.OVERFLOWED,
            window=WINDOW,
            key_of=key_on_any,
            yields=self._yields,
            expired=self._source.note_expired,
            clock=self._clock,
        )
        self._pace.begin(now)
        self.pressure.begin(now)
        return True

    def _picked(self, source: Source) -> FilteredSource:
        """Pick from a source, or close it."""
        try:
            return FilteredSource(
                source,
                self._clock,
                selection=self._selection(),
                park=self._park,
                why_not=self._why_not,
            )
        except BaseException:
            source.close()
            raise

    def _selection(self) -> Selection:
        """Return what is meant: messages of the clients' brokers, not set aside too often."""
        own = " || ".join(f"broker == '{broker}'" for broker in ("", *self._origins))
        engine = self._engine
        return Selection(own, engine.settings.redrive_attempts, signer=engine.signer)

    def _why_not(self, envelope: Envelope) -> str | None:
        """Say why a message may not go where it was going, on the broker of one of the clients."""
        return self._allowance.why_not(without_broker(envelope)) or self._late.why_not(envelope)

    def _leads_back(self, destination: str) -> bool:
        """Tell whether it is where messages are read from."""
        actions = [action for rule in self.pressure.rules for action in rule.chain]
        aside = {getattr(action, "destination", None) for action in actions}
        return destination in aside or destination.partition("/")[0] in aside

    def _yields(self) -> bool:
        over = self._clock.now() >= self._turn_ends_s
        return over or self._ending or self.pressure.is_back

    def _pause(self, now: float) -> None:
        """Take nothing for a while; keep what was taken where giving it back would be counted."""
        self._pace.halve(now)
        self.pressure.end(now)
        if self._source is not None and self._source.counts_deliveries:
            self._paused = True
        else:
            self.close()

    def _resume(self, now: float) -> bool:
        self._paused = False
        self._pace.begin(now)
        self.pressure.begin(now)
        return True

    def failed(self, error: BaseException) -> None:
        """Try again later, after an error that nobody foresaw."""
        self._failed(self._clock.now(), error)

    def _failed(self, now: float, error: BaseException) -> None:
        """Try again later; say so once a minute."""
        if now - self._logged_s >= LOG_EVERY_S:
            self._logged_s = now
            rules = ", ".join(rule.name for rule in self.pressure.rules)
            log.warning(
                "rule %s: what overflowed cannot be brought back now: %s", rules, text_of(error)
            )
        self._retry_s = now + self._backoff.next_s()
        self.close()

    def close(self) -> None:
        """Wait for the answers to what is sent, half a minute at the most; close the source.

        What is not answered by then comes again, with the same id.
        """
        redriver, source = self._redriver, self._source
        self._redriver = self._source = None
        self._paused = False
        if redriver is None or source is None:
            return
        redriver.stop()
        try:
            redriver.settle(CLOSE_WITHIN_S)
            source.settle(CLOSE_WITHIN_S)
        except Exception as error:
            log.warning("what was brought back last is not answered for: %s", text_of(error))
        try:
            source.close()
        except Exception as error:
            log.warning("the source of an overflow destination cannot be closed: %s", error)
