"""`spool SIZE`: keep the message on disk, and send it when the rules admit it again."""

from __future__ import annotations

import logging
import threading
import weakref
from math import inf
from urllib.parse import quote

from shield import URL, Action, Engine, OverLimit, Rule, Transport, action
from shield.plugins.actions.spool.errors import SpoolError
from shield.plugins.actions.spool.open_spool import OpenSpool
from shield.plugins.actions.spool.settings import SpoolSettings
from shield.plugins.actions.spool.storage.location import file_for, files_in, make_folder, names_of
from shield.redriving.worker import KeyOf, key_on_any, key_on_kafka

log = logging.getLogger("shield.spool")
TRY_AGAIN_S = 5.0
LOG_EVERY_S = 60.0


class Spool(Action):
    """The caller's future completes once the message is on disk; from there it is sent later.

    A file for each process name and rule, in `spool_dir`, bounded in bytes. What is in it goes
    out in the background, the oldest first, as the rules admit it, through any open client of the
    broker that it was meant for; also what an earlier process has left. It is sent at least once:
    after a crash some messages come again, with the same `shield-message-id`.

    Declines while the file is full, cannot be written, or belongs to another process.
    """

    Settings = SpoolSettings
    directions = frozenset({"publish"})
    argument = "size"
    sets_aside = True

    def __init__(self, settings: SpoolSettings, rule: Rule, name: str) -> None:
        super().__init__(settings, rule, name)
        self._lock = threading.RLock()
        self._clients: list[weakref.ref[Transport]] = []
        self._spool: OpenSpool | None = None
        self._try_at_s = self._log_at_s = -inf

    def step(self, over: OverLimit) -> action.Step | None:
        """Keep it, where there is room. Opens the file where that could not be done before."""
        spool = self._spool
        if spool is None or spool.is_over:
            with self._lock:
                spool = self._ensure_open(over.engine)
        if spool is None or not spool.has_room(over.message.size):
            return action.Decline("not open" if spool is None else "full")
        return action.Keep("spooled", spool.keep)

    def places(self, engine: Engine) -> list[URL]:
        """Return the files of this rule, whichever process name they are of."""
        settings = engine.settings
        own = file_for(settings.spool_dir, settings.producer, self.rule.name)
        files = files_in(settings.spool_dir)
        found = (file for file in files if file == own or names_of(file)[1] == self.rule.name)
        return [URL("spool", "", quote(str(file.absolute()), safe="/+")) for file in found]

    def opened(self, client: Transport, engine: Engine) -> None:
        """Open the file with the first client; bring back what there is for its broker."""
        with self._lock:
            self._clients = [each for each in self._clients if each() is not None]
            self._clients.append(weakref.ref(client))
            was_open = self._spool is not None and not self._spool.is_over
            spool = self._ensure_open(engine)
            if was_open and spool is not None:
                spool.attach(client)

    def closing(self, client: Transport, timeout_s: float | None) -> None:
        """Bring nothing back through it any more; what is left stays on disk."""
        with self._lock:
            self._clients = [each for each in self._clients if each() not in (None, client)]
            spool = self._spool
        if spool is not None:
            spool.detach(client, timeout_s)

    def _ensure_open(self, engine: Engine) -> OpenSpool | None:
        """Return the open spool; None where there is no client, or the file cannot be used."""
        spool = self._spool
        if spool is not None and not spool.is_over:
            return spool
        clients = [client for each in self._clients if (client := each()) is not None]
        now = engine.clock.now()
        if not clients or now < self._try_at_s:
            return None
        try:
            self._spool = spool = self._open(engine, spool)
        except SpoolError as error:
            self._try_at_s = now + TRY_AGAIN_S
            self._complain(error, now)
            return None
        for client in clients:
            spool.attach(client)
        return spool

    def _open(self, engine: Engine, before: OpenSpool | None) -> OpenSpool:
        if before is not None:
            before.join(TRY_AGAIN_S)
        folder = engine.settings.spool_dir
        make_folder(folder)
        file = file_for(folder, engine.settings.producer, self.rule.name)
        return OpenSpool(file, self.settings, engine, self._key_of())

    def _key_of(self) -> KeyOf:
        """Return what keeps order: Kafka's key; where the rule asks for it, also on RabbitMQ."""
        asked = any(policy.name == "order" for policy in self.rule.policies)
        return key_on_any if asked else key_on_kafka

    def _complain(self, error: SpoolError, now: float) -> None:
        if now >= self._log_at_s:
            self._log_at_s = now + LOG_EVERY_S
            log.error("%s; messages over the limit of %s go on", error, self.rule.name)
