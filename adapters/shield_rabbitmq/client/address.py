"""A RabbitMQ as a URL names it, and what of it: an exchange with a routing key, or a queue."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

import pika
from pika.connection import Parameters

from shield import URL

ANSWER_WITHIN_S = 3
HEARTBEAT_S = 10
BLOCKED_WITHIN_S = 30
OPTIONS = {
    "blocked_connection_timeout": BLOCKED_WITHIN_S,
    "connection_attempts": 1,
    "heartbeat": HEARTBEAT_S,
    "socket_timeout": ANSWER_WITHIN_S,
    "stack_timeout": ANSWER_WITHIN_S,
}
"""What pika takes in a URL, as it is where the URL does not say: a silent broker is found out."""
MORE_OPTIONS = ("channel_max", "client_properties", "frame_max", "ssl_options", "tcp_options")


@dataclass(frozen=True)
class RabbitMQAddress:
    """Where a broker is, and what of its virtual host is meant."""

    parameters: Parameters = field(repr=False)
    names: tuple[str, ...]
    """What stands behind the virtual host: an exchange and maybe a routing key; or a queue."""

    @property
    def origin(self) -> str:
        """Which broker and virtual host it is, without credentials."""
        return origin_of(self.parameters)

    @property
    def exchange(self) -> str | None:
        """The exchange; None where the URL names none, empty for the default one."""
        return self.names[0] if self.names else None

    @property
    def routing_key(self) -> str | None:
        """The routing key; None where each message keeps its own."""
        return (self.names[1] if len(self.names) > 1 else "") or None


def address_of(url: URL) -> RabbitMQAddress:
    """Read a URL: `amqp://user:password@host:port/vhost/EXCHANGE[/ROUTING_KEY]`.

    An empty virtual host is `/`, as `%2F` is: `amqp://host//orders` and `amqp://host/%2F/orders`
    mean the same.

    Raises:
        ValueError: it is none of RabbitMQ's.
    """
    if "," in url.hosts or not url.hosts.partition(":")[0]:
        raise ValueError(f"{url} has to name one host")
    _vhost, *names = url.segments(3) or [""]
    address = RabbitMQAddress(_parameters(url), tuple(names) if any(names) else ())
    for name in address.names:
        if len(name.encode()) > 255:
            raise ValueError(f"{name[:20]}... has {len(name.encode())} bytes; allowed are 255")
    return address


def origin_of(parameters: Parameters) -> str:
    """Return broker and virtual host as a URL without credentials."""
    vhost = parameters.virtual_host
    path = "" if vhost == "/" else quote(vhost, safe="")
    return f"amqp://{parameters.host}:{parameters.port}/{path}"


def broker_url(url: URL) -> str:
    """Return broker and virtual host as pika reads them, with credentials and options."""
    options = OPTIONS | url.options_of(*OPTIONS, *MORE_OPTIONS)
    user = ""
    if url.username is not None:
        user = f"{quote(url.username, safe='')}:{quote(url.password or '', safe='')}@"
    vhost, *_ = url.segments(3) or [""]
    place = quote(vhost or "/", safe="")
    return f"{url.scheme}://{user}{url.hosts}/{place}?{urlencode(options)}"


def _parameters(url: URL) -> Parameters:
    text = broker_url(url)
    try:
        return pika.URLParameters(text)
    except Exception as error:
        raise ValueError(f"{url}: {error}") from None
