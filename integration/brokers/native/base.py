"""What native brokers have in common: one process, on data in a temporary folder."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from integration.brokers.broker import Broker, BrokerError, Way
from integration.brokers.native.folder import Folder
from integration.brokers.native.process import Process
from integration.brokers.ready import wait_until

_ANSWERS_WITHIN_S = 180.0


class NativeBroker(Broker):
    """A broker's process; the kinds say how it is installed, set up, called and asked."""

    way: Way = "native"
    name: ClassVar[str]

    _folder: Folder | None = None
    _process: Process | None = None

    @abstractmethod
    def install(self) -> None:
        """Get what is missing on this machine, or raise `BrokerError` saying how to."""

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Write what the broker needs to start into its new folder."""

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """The command line of the broker itself: a program that does not fork."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it works."""

    def environment(self, folder: Path) -> Mapping[str, str]:
        """Variables that the broker gets beside our own."""
        return {}

    def start(self) -> None:
        self.install()
        self._folder = Folder(self.name)
        try:
            self.prepare(self.folder)
            self.restart()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._process:
            self._process.kill()  # its data go, so there is nothing to end in good order
            self._process = None
        if self._folder:
            self._folder.remove()
            self._folder = None

    def restart(self) -> None:
        if self._process:
            self._process.kill()
        command, environment = self.command(self.folder), self.environment(self.folder)
        self._process = Process(command, self.folder, "output.log", environment)
        self._wait(self._process)

    def kill(self) -> None:
        self.process.kill()

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    @property
    def folder(self) -> Path:
        """Where its settings, data and output are, between start and stop."""
        if self._folder is None:
            raise BrokerError(f"this {self.name} was not started")
        return self._folder.path

    @property
    def process(self) -> Process:
        """The broker's own process, between start and stop."""
        if self._process is None:
            raise BrokerError(f"this {self.name} was not started")
        return self._process

    def _wait(self, process: Process) -> None:
        try:
            wait_until(
                self.answers,
                name=f"native {self.name} at {self.address}",
                within_s=_ANSWERS_WITHIN_S,
                is_alive=process.is_alive,
            )
        except BrokerError as error:
            raise BrokerError(f"{error}; its last words:\n{process.log_tail()}") from None
