"""`shield.redrive(...)`: brings back what was set aside in one place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from shield.accounts import End
from shield.clock import Clock
from shield.config.credentials import with_credentials
from shield.config.redrive_allow import RedriveAllow
from shield.envelope import Envelope
from shield.errors import Reject, SettingsError, ShieldError
from shield.operations.locate import place_of
from shield.redriving.destinations import FixedDestination, OriginalDestination
from shield.redriving.expiry import ExpiryCheck
from shield.redriving.filter import Counts, FilteredSource, Park, Unreturned, parking
from shield.redriving.follow import FollowedSource
from shield.redriving.worker import WINDOW, Redriver, key_on_any
from shield.selection import Selection
from shield.shield import Shield, shield_of
from shield.transport import Source, Taken, Transport
from shield.units import Rate
from shield.url import URL, is_url, masked
from shield.where import where as predicate_of

log = logging.getLogger("shield")
ORIGINAL = "original"
TRIES = 5
TRY_FOR_S = 15.0
"""How often, and how long, one message is tried at the least before it is given up in a run."""
MOST_IN_VAIN = 20
"""How many may be given up while nothing else gets through; then the run ends."""
NOTHING_FOR_S = 15.0
"""How long a source that cannot count its messages gives none before that counts as its end."""
CLOSE_WITHIN_S = 30.0
SETTLE_WITHIN_S = 60.0
"""How long what is sent may go unanswered once it is to end; what is not answered comes again."""
LOOKING_COUNTS = (
    "a quorum queue, or one that does not tell its kind, counts each look at a message as a "
    "delivery, and drops it beyond its delivery limit; a redrive without --dry-run takes no more "
    "than it sends (--limit 10 for a few), and --yes looks all the same: what came back before "
    "goes to the end of its queue then"
)


@dataclass(frozen=True)
class Redriven:
    """What a redrive did; what is not back is still where it was.

    `messages` counts, by rule and original destination, what went back or, in a dry run, would
    go. `expired` counts those whose time to live was over: they are dropped. `sent` includes what
    was sent twice because its first answer was lost. `listed` names the first thousand of those
    that failed, were parked or were kept.
    """

    sent: int = 0
    failed: int = 0
    refused: int = 0
    parked: int = 0
    kept: int = 0
    skipped: int = 0
    unknown: int = 0
    expired: int = 0
    dry_run: bool = False
    interrupted: bool = False
    error: str | None = None
    """Why it ended early, where the target took nothing any more."""
    seconds: float = 0.0
    messages: dict[tuple[str, str], int] = field(default_factory=dict)
    listed: tuple[Unreturned, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all that was meant went back: none failed, was parked or says not where to."""
        return not (
            self.failed or self.refused or self.parked or self.kept or self.unknown or self.error
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        messages = [
            {"rule": rule, "destination": destination, "messages": number}
            for (rule, destination), number in sorted(self.messages.items())
        ]
        return {**asdict(self), "complete": self.complete, "messages": messages}


@dataclass(slots=True)
class Failures:
    """Those of one message in this run."""

    since_s: float
    sent_before: int
    """How many others were back when it failed for the first time."""
    tries: int = 0


def redrive(
    source: str,
    *,
    to: str | None = None,
    rate: str | None = None,
    where: str | None = None,
    allow: Iterable[str] = (),
    limit: int | None = None,
    dry_run: bool = False,
    follow: bool = False,
    park: str | None = None,
    max_attempts: int | None = None,
    origin_header: str | None = None,
    confirmed: bool = False,
    shield: Shield | str | Path | Mapping[str, Any] | None = None,
) -> Redriven:
    """Bring messages back from where they were set aside, through the rules, to where they belong.

    Returns when all that were meant are back, or were tried. Each is sent once the rules admit
    it, behind all that producers send meanwhile, and is forgotten at its source only when the
    broker has confirmed it: whatever ends this, the next call goes on, and a message that
    arrives twice has the same `shield-message-id` (`shield.Deduplicator`).

    Args:
        source: a URL (`kafka://host:port/topic`, `amqp://host/vhost/queue`, `file:///path`, a
            third party's), the path of a spool or file, or the name of a rule whose chain has one.
        to: None, for where each was going: on the broker that is read, where a rule covers that;
            `original`, for the same without asking the rules, which is also what None means with a
            `Shield` or settings that were made in code without any rule; the URL of a broker that
            stands in for that; or of one topic, exchange or file.
        rate: at the most, as `200/s`; the rules' quotas hold besides.
        where: which messages, as `rule==orders && header tenant!=acme`; the others stay.
        allow: where they may go beside that, and beside the settings' `redrive_allow`: brokers as
            `kafka://other:9092`, with a glob on destinations as `kafka://other:9092/orders.*`, or
            such a glob alone for the broker that is read. Others are refused, and stay.
        limit: how many at the most.
        dry_run: count what would go back, and leave everything as it is.
        follow: go on waiting for more, until stopped; also for a broker that is away.
        park: where messages go that have been set aside `max_attempts` times: a URL, or a
            destination on the broker they were going to. Without it, and without the settings'
            `redrive_park`, these stay where they are.
        max_attempts: the settings' `redrive_attempts` if not given.
        origin_header: which header says where a message was going that others than Shield have
            set aside: a topic, `EXCHANGE/KEY` or a queue. The usual ones are known.
        confirmed: go on where messages may be lost by that: where looking at them counts.
        shield: whose rules apply: a `Shield`, a file, settings, or the shared one.

    Raises:
        SettingsError: an argument that cannot be used; it says which, and what is allowed.
        ShieldError: the source cannot be read, or the target not be reached.
    """
    own = shield_of(shield)
    if to is None and isinstance(shield, Shield | Mapping) and not own.rules:
        to = ORIGINAL
    redriving = Redriving(
        source,
        to=to,
        rate=rate,
        where=where,
        allow=allow,
        limit=limit,
        follow=follow,
        park=park,
        max_attempts=max_attempts,
        origin_header=origin_header,
        dry_run=dry_run,
        confirmed=confirmed,
        shield=own,
    )
    return redriving.survey() if dry_run else redriving.run()


class Redriving:
    """One redrive: made, then run or surveyed, once, on one thread; looked at from others."""

    def __init__(
        self,
        source: str,
        *,
        shield: Shield,
        to: str | None = None,
        rate: str | None = None,
        where: str | None = None,
        allow: Iterable[str] = (),
        limit: int | None = None,
        follow: bool = False,
        park: str | None = None,
        max_attempts: int | None = None,
        origin_header: str | None = None,
        dry_run: bool = False,
        confirmed: bool = False,
    ) -> None:
        self._shield = shield
        self._dry_run = dry_run
        self._confirmed = confirmed
        self._clock: Clock = shield.clock
        self._follow = follow
        self.url = place_of(source, shield)
        most = shield.settings.redrive_attempts if max_attempts is None else max_attempts
        self._per_second = _per_second(rate)
        _check(where, limit=limit, max_attempts=max_attempts)
        self._transports: list[Transport] = []
        self._inner: Source | None = None
        self._failures: dict[object, Failures] = {}
        self._in_vain = 0
        self._sent_at_last = 0
        """How many were back when the last one was given up."""
        self._error: str | None = None
        self._interrupted = False
        self._sent_before = 0
        try:
            allowance = self._allowance_of(to, allow)
            self._target = self._target_of(to, allowance)
            park = park or shield.settings.redrive_park
            opened = self._open_source()
            if opened.believed:
                allowance.believe()
            self._source = (FollowedSource if follow else FilteredSource)(
                opened,
                self._clock,
                selection=Selection(
                    where,
                    most,
                    anywhere=not self._target.roams,
                    origin_header=origin_header,
                    signer=shield.engine.signer,
                ),
                limit=limit,
                park=None if park is None else self._park_of(park),
                key_of=key_on_any,
                why_not=self._why_not(allowance),
            )
        except BaseException:
            self._close()
            raise
        self._redriver = Redriver(
            self._source,
            self._target,
            shield.admit,
            failed_as=End.OVERFLOWED,
            window=WINDOW,
            rate=self._per_second,
            gives_up=self._gives_up,
            expired=self._source.note_expired,
            clock=self._clock,
        )
        self._begun_s = self._last_s = self._clock.now()

    # --- from any thread ------------------------------------------------------------------------

    def stop(self) -> None:
        """Take no more; it returns when what is under way is answered."""
        self._interrupted = True
        self._redriver.stop()

    @property
    def tally(self) -> Counts:
        """What became of what was read so far."""
        return self._source.tally

    @property
    def sent(self) -> int:
        """How many are back so far."""
        return self._redriver.progress.sent

    @property
    def last_error(self) -> Exception | None:
        """What the last send failed with, that failed."""
        return self._redriver.progress.last_error

    @property
    def unanswered(self) -> int:
        """How many are on their way."""
        return self._redriver.unanswered + self._source.parking

    def left(self) -> int | None:
        """Return how many may still be taken; None where that cannot be told."""
        return self._source.seen_left

    def _why_not(self, allowance: RedriveAllow) -> Callable[[Envelope], str | None]:
        """Return what says of a message why it may not go, or would be lost there."""
        late = ExpiryCheck(self._target.keeps, confirmed=self._confirmed)
        if isinstance(self._target, FixedDestination):
            return late.why_not
        return lambda envelope: allowance.why_not(envelope) or late.why_not(envelope)

    # --- running --------------------------------------------------------------------------------

    def run(self) -> Redriven:
        """Bring back what is meant, until there is no more, or it is stopped."""
        self._begun_s = self._last_s = self._clock.now()
        try:
            self._redriver.run(ended=self._ended, settle_within_s=SETTLE_WITHIN_S)
            self._source.settle(SETTLE_WITHIN_S)
        finally:
            self._close(self._redriver.pick_up)
        return self._result()

    def survey(self) -> Redriven:
        """Read what is there and count it; nothing is sent, and nothing forgotten.

        Raises:
            ShieldError: to look is counted there, and nobody has confirmed that.
        """
        self._begun_s = self._last_s = self._clock.now()
        try:
            if self._source.counts_deliveries and not self._confirmed:
                raise ShieldError(f"{self.url}: {LOOKING_COUNTS}")
            self._source.look_only()
            while not (self._interrupted or self._at_end()):
                if self._source.take(WINDOW, 0.2):
                    self._last_s = self._clock.now()
        finally:
            self._close()
        return replace(self._result(), dry_run=True)

    def _ended(self) -> bool:
        return not self._follow and not self._source.parking and self._at_end()

    def _at_end(self) -> bool:
        """Tell whether the source has given all it had."""
        left = self._source.left()
        if left is not None:
            return left == 0
        sent, now = self._redriver.progress.sent, self._clock.now()
        if sent != self._sent_before:
            self._sent_before, self._last_s = sent, now
        return now - self._last_s >= NOTHING_FOR_S

    def _gives_up(self, taken: Taken, error: Exception) -> bool:
        """Count a message's failures; one that fails again and again is left."""
        key = taken.envelope.id or taken.position
        sent, now = self._redriver.progress.sent, self._clock.now()
        failures = self._failures.setdefault(key, Failures(now, sent))
        failures.tries += 1
        enough = failures.tries >= TRIES and now - failures.since_s >= TRY_FOR_S
        hopeless = self._target.is_hopeless(error)
        if not (enough or hopeless or isinstance(error, Reject)):
            return False
        in_vain = sent == failures.sent_before
        if in_vain and self._follow and not hopeless and not isinstance(error, Reject):
            self._wait_for_target(failures, error)
            return False
        del self._failures[key]
        self._source.note_failed(taken, error, holds_key=not hopeless)
        if not self._target.is_faulty(error):  # one that is at fault says nothing of the target
            self._count_in_vain(error, in_vain=in_vain and sent == self._sent_at_last)
        self._sent_at_last = sent
        return True

    def _wait_for_target(self, failures: Failures, error: Exception) -> None:
        """Who follows goes on where nothing gets through for a while; the log says so at times."""
        failures.since_s, failures.tries = self._clock.now(), 0
        log.warning("redrive of %s waits, nothing is taken there: %r", self.url, error)

    def _count_in_vain(self, error: Exception, *, in_vain: bool) -> None:
        """End where one after the other is given up, and nothing gets through between them."""
        self._in_vain = self._in_vain + 1 if in_vain else 1
        if self._in_vain >= MOST_IN_VAIN:
            self._error = f"nothing is taken any more: {type(error).__name__}: {error}"
            self._redriver.stop()

    def _result(self) -> Redriven:
        tally = self._source.tally
        return Redriven(
            sent=self._redriver.progress.sent,
            failed=tally.failed,
            refused=tally.refused,
            parked=tally.parked,
            kept=tally.kept,
            skipped=tally.skipped,
            unknown=tally.unknown,
            expired=tally.expired,
            interrupted=self._interrupted,
            error=self._error,
            seconds=self._clock.now() - self._begun_s,
            messages={key: number for key, number in tally.found.items() if number},
            listed=tuple(tally.listed),
        )

    # --- what it reads and writes ---------------------------------------------------------------

    def _open_source(self) -> Source:
        with _named("source", str(self.url)):
            transport = self._shield.registry.transport(self.url.scheme)
            self._inner = transport.look(self.url) if self._dry_run else transport.source(self.url)
        return self._inner

    def _allowance_of(self, to: str | None, allow: Iterable[str]) -> RedriveAllow:
        """Return where headers may send a message."""
        registry = self._shield.registry
        home: URL | None = None
        with _named("source", str(self.url)), suppress(ShieldError):
            home = self._home()
        place = "" if home is None else self.url.path.removeprefix(home.path).removeprefix("/")
        return RedriveAllow(
            self._shield.rules,
            (*allow, *self._shield.settings.redrive_allow),
            home=home,
            home_of=lambda url: registry.transport(url.scheme).home(url),
            reaches=registry.reaches,
            anywhere=to is not None,
            never=lambda destination: destination == unquote(place),
        )

    def _target_of(self, to: str | None, allowance: RedriveAllow) -> Transport:
        if to is None or to.lower() == ORIGINAL:
            target: Transport = OriginalDestination(self._to, self._home, allowance)
        elif is_url(to):
            with _named("to", to):
                target = FixedDestination(self._to(URL.parse(to)))
        else:
            raise SettingsError(f"to: found {to!r}; allowed is {ORIGINAL!r}, or a URL")
        self._transports.append(target)
        return target

    def _park_of(self, park: str) -> Park:
        with _named("park", park):
            if not is_url(park):
                if not self._target.roams:
                    raise ValueError("all goes to one place; allowed is a URL")
                return parking(self._target, park)
            transport = self._to(URL.parse(park))
            if transport.roams:
                raise ValueError("it names no topic, queue or exchange")
        self._transports.append(transport)
        return parking(transport, None)

    def _to(self, url: URL) -> Transport:
        url = with_credentials(url, self._shield.settings.credentials)
        return self._shield.registry.transport(url.scheme).to(url)

    def _home(self) -> URL:
        return self._shield.registry.transport(self.url.scheme).home(self.url)

    def _close(self, between: Callable[[], None] = lambda: None) -> None:
        """Close the source last: what is confirmed while the others close is forgotten there."""
        try:
            while self._transports:
                _close(self._transports.pop())
            between()
        finally:
            if self._inner is not None:
                self._inner.close()


def _close(transport: Transport) -> None:
    """Close what was sent through; where that fails, the source is still to be closed."""
    try:
        transport.close(CLOSE_WITHIN_S)
    except Exception:
        log.exception("what was sent through cannot be closed")


@contextmanager
def _named(argument: str, found: str) -> Iterator[None]:
    """Say which argument is wrong."""
    try:
        yield
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{argument}: found {masked(found)!r}; {error}") from None


def _check(where: str | None, **numbers: int | None) -> None:
    """Refuse what is wrong, before anything is opened."""
    if where is not None:
        predicate_of(where)
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise SettingsError(f"{name}: found {number}; allowed is 1 or more")


def _per_second(rate: str | None) -> float | None:
    if rate is None:
        return None
    with _named("rate", rate):
        parsed = Rate.parse(rate)
        if parsed.in_bytes:
            raise ValueError('a redrive counts messages; allowed is a rate as "200/s"')
    return parsed.per_second
