"""What a test may ask of a broker, however it was got."""

from typing import Literal, Protocol, Self

Way = Literal["external", "docker", "native"]
Setting = str | int | bool


class BrokerError(Exception):
    """A broker cannot be had or cannot do this; the message says what to do about it."""


class Broker(Protocol):
    """A broker's life and its faults; as a context manager it is started and stopped.

    `address` ("host:port" for Kafka, a URL for the others) is known once it has started and stays
    the same until `stop`.
    """

    way: Way
    address: str

    def start(self) -> None:
        """Start it and wait until it answers."""

    def stop(self) -> None:
        """End it and throw its data away; does nothing when it is not running."""

    def save_declared(self) -> None:
        """Put what was declared out of reach of `kill`.

        RabbitMQ answers a declare up to seconds before the queue is on disk (Mnesia writes its log
        behind), so one declared just before SIGKILL may be gone. A confirmed message is on disk;
        what Kafka and Redis have answered is with the operating system.
        """

    def kill(self) -> None:
        """End it at once, as SIGKILL does; its data stay for `restart`."""

    def restart(self) -> None:
        """Start it again after `kill`, on its data and address; wait until it answers."""

    def pause(self) -> None:
        """Freeze it: connections open and then hang, until `resume`."""

    def resume(self) -> None:
        """Let it run on after `pause`."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class RabbitMQ(Broker, Protocol):
    """RabbitMQ with its command line and its management plugin.

    `management_url` is the root of the HTTP API with user and password: http://u:p@host:port.
    """

    management_url: str

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl with these arguments on the broker; what it printed."""
        ...

    def save_declared(self) -> None:
        self.ctl("eval", "mnesia:sync_log().")
