"""`file:///path`: messages appended to a file, many with one fsync."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence

from shield import URL, Envelope, ShieldError, Source, Transport
from shield.plugins.transports.file.location import FORM, FileLocation, place_of
from shield.plugins.transports.file.snapshot import FileSnapshot
from shield.plugins.transports.file.source import FileSource
from shield.safe_files import write_all
from shield.transport import Done

log = logging.getLogger("shield.file")
LOG_EVERY_S = 60.0
BATCH = 1000
Item = tuple[bytes, Done]


class FileTransport(Transport):
    """Appends on a thread of its own: what has come meanwhile goes to the disk in one piece.

    A message is encoded on its caller's thread. Several processes may write one file: each has it
    locked while it appends. Where a write or its fsync fails, the file is cut back to where it
    was and the messages of that piece fail. A process that is killed leaves one torn message at
    the most, the last one, whose end was never reported.
    """

    scheme = "file"
    form = FORM

    def __init__(self, place: FileLocation) -> None:
        self._place = place
        self.origin = f"file://{place.path}"
        self._changed = threading.Condition(threading.Lock())
        self._queue: deque[Item] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._known: tuple[int, int] | None = None
        """The file whose name is on the disk."""
        self._logged_s = float("-inf")

    @classmethod
    def to(cls, url: URL) -> Transport:
        """Return one for a URL; the file is made with the first message."""
        return cls(place_of(url))

    @classmethod
    def source(cls, url: URL) -> Source:
        """Return what reads the file back, and those before it."""
        return FileSource(place_of(url))

    @classmethod
    def look(cls, url: URL) -> Source:
        """Return what reads the same files, and leaves them as they are."""
        return FileSnapshot(place_of(url))

    def send(self, envelope: Envelope, done: Done) -> None:
        """Queue it for the disk."""
        try:
            frame = self._place.format.encoded(envelope)
        except Exception as error:
            done(error)
            return
        with self._changed:
            closed = self._closed
            if not closed:
                self._queue.append((frame, done))
                self._start()
                self._changed.notify_all()
        if closed:
            done(ShieldError(f"{self.origin} is closed"))

    def close(self, timeout_s: float) -> None:
        """Return when all is written; fail what is not in time."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        for _, done in self._taken():
            done(ShieldError(f"{self.origin} was closed before it was written"))

    # --- the thread that writes -------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shield-file", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while batch := self._next():
            error = self._appended([frame for frame, _ in batch])
            for _, done in batch:
                try:
                    done(error)
                except Exception:
                    log.exception("what hears of messages in %s raised", self.origin)

    def _next(self) -> list[Item]:
        """Wait for messages; none means that all are written and the transport is closed."""
        with self._changed:
            while not (self._queue or self._closed):
                self._changed.wait()
            return self._taken(BATCH)

    def _taken(self, most: int | None = None) -> list[Item]:
        taken: list[Item] = []
        while self._queue and (most is None or len(taken) < most):
            taken.append(self._queue.popleft())
        return taken

    def _appended(self, frames: Sequence[bytes]) -> Exception | None:
        """Write one piece; return why that was not possible."""
        try:
            self._append(b"".join(frames))
        except (OSError, ShieldError) as error:
            why = (isinstance(error, OSError) and error.strerror) or error
            refusal = ShieldError(f"cannot write {self._place.path}: {why}")
            now = time.monotonic()
            if now - self._logged_s >= LOG_EVERY_S:
                self._logged_s = now
                log.warning("%s; messages for it go on in their chains", refusal)
            return refusal
        except Exception as error:
            return error
        return None

    def _append(self, data: bytes) -> None:
        while True:
            try:
                if self._appended_to_file(data):
                    return
            except FileNotFoundError:
                if self._place.begin(data):
                    return

    def _appended_to_file(self, data: bytes) -> bool:
        """Append to the file that is there; False where it was full, and is now numbered."""
        place = self._place
        with place.locked() as file:
            size = os.fstat(file).st_size
            if size and size + len(data) > place.rotate:
                place.seal()
                return False
            if size and place.format.torn_by and os.pread(file, 1, size - 1) != b"\n":
                data = place.format.torn_by + data
            _write(file, data, size, place.fsync)
            self._know(os.fstat(file))
        return True

    def _know(self, found: os.stat_result) -> None:
        """Have a file's name on the disk, too: whoever made it may not have come so far."""
        known = found.st_dev, found.st_ino
        if known != self._known:
            self._place.sync_folder()
            self._known = known


def _write(file: int, data: bytes, size: int, fsync: bool) -> None:
    """Write all of it and make it durable; or leave the file as it was, of that size."""
    try:
        write_all(file, data)
        if fsync:
            os.fdatasync(file)
    except OSError:
        os.ftruncate(file, size)
        raise
