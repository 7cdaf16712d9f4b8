"""Which RabbitMQ a command line means, and a plain pika connection to it."""

from __future__ import annotations

import pika
from pika.exceptions import AMQPError

from shield import SettingsError, UnavailableError
from shield_rabbitmq.publishing.publisher import parameters_of

USUAL = "localhost:5672"
HOW = (
    "start one with `make brokers BROKERS=rabbitmq` or `docker run -p 5672:5672 rabbitmq:3`, "
    "or name yours with --bootstrap amqp://user:password@host:port/vhost"
)


class BrokerAddress:
    """One RabbitMQ, named as a URL or as HOST:PORT; None is the usual one on this machine.

    Args:
        address: its name.
        hint: what the user may do where it does not answer.

    Raises:
        SettingsError: it is neither.
    """

    def __init__(self, address: str | None, hint: str = f"; {HOW}") -> None:
        self._hint = hint
        address = address or USUAL
        self.url = address if "://" in address else f"amqp://guest:guest@{address}/"
        try:
            self._parameters = parameters_of(self.url)
        except SettingsError as error:
            raise SettingsError(f"--bootstrap: {error}") from None

    def __str__(self) -> str:
        """Say where it is, without the password."""
        vhost = self._parameters.virtual_host
        name = f"{self._parameters.host}:{self._parameters.port}"
        return name if vhost == "/" else f"{name}, virtual host {vhost!r}"

    def connect(self) -> pika.BlockingConnection:
        """Return a connection of pika's own.

        Raises:
            ShieldError: nothing answers there, or it does not let us in.
        """
        try:
            return pika.BlockingConnection(self._parameters)
        except (AMQPError, OSError) as error:
            raise UnavailableError(
                f"no RabbitMQ for us at {self}: {_reason(error)}{self._hint}"
            ) from error


def _reason(error: BaseException) -> str:
    """Return what went wrong: pika wraps it once for each thing it tried."""
    inner = error.args[0] if error.args else None
    inner = getattr(inner, "exception", inner)
    return _reason(inner) if isinstance(inner, BaseException) else str(error) or repr(error)
