"""A RabbitMQ in memory that is spoken to over TCP: it refuses what the real one refuses.

It confirms nothing before it has read all that has come, as a busy broker does, and what is not
confirmed when it closes a channel never is.
"""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from typing import Any

from pika import BasicProperties, frame, spec

FRAME_MAX = 131_072


class AmqpServer:
    """Queues, exchanges that are known by name, and who may publish what."""

    def __init__(self) -> None:
        self.queues: dict[str, list[bytes]] = defaultdict(list)
        self.exchanges: dict[str, str] = {}
        """Their queue, by name."""
        self.forbidden_topics: set[tuple[str, str]] = set()
        self.max_size = 10_000_000
        self.odd: set[bytes] = set()
        """Bodies that are refused with a text that nobody understands."""
        self.closed_channels = 0
        self.confirms = True
        self.blocked = False
        """Whether a connection that publishes is told so, and not read any more."""
        self._unblocked = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self.url = f"amqp://guest:guest@127.0.0.1:{self._listener.getsockname()[1]}/%2F"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections."""
        for each in self._sockets:
            each.close()

    def unblock(self) -> None:
        """End the alarm."""
        self.blocked = False
        self._unblocked.set()

    def refusal(
        self, method: Any, properties: BasicProperties, body: bytes
    ) -> tuple[int, str] | None:
        """Return what RabbitMQ says where it refuses a message."""
        place = f"exchange '{method.exchange or 'amq.default'}' in vhost '/'"
        if method.exchange and method.exchange not in self.exchanges:
            return 404, f"NOT_FOUND - no {place}"
        if (method.exchange, method.routing_key) in self.forbidden_topics:
            who = f"topic '{method.routing_key}' in {place} refused for user 'guest'"
            return 403, f"ACCESS_REFUSED - access to {who}"
        if properties.user_id not in (None, "guest"):
            who = f"'{properties.user_id}' but authenticated user was 'guest'"
            return 406, f"PRECONDITION_FAILED - user_id property set to {who}"
        if len(body) > self.max_size:
            size = f"message size {len(body)} is larger than configured max size {self.max_size}"
            return 406, f"PRECONDITION_FAILED - {size}"
        if body in self.odd or properties.delivery_mode not in (None, 1, 2):
            return 406, "PRECONDITION_FAILED - for a reason of its own"
        return None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            threading.Thread(target=_Served(self, client).run, daemon=True).start()


class _Served:
    """One connection."""

    def __init__(self, server: AmqpServer, client: socket.socket) -> None:
        self._server = server
        self._socket = client
        self._buffer = b""
        self._tags: dict[int, int] = {}
        self._unsaid: dict[int, int] = {}
        self._closing: set[int] = set()
        self._parts: dict[int, list[Any]] = {}

    def run(self) -> None:
        try:
            self._socket.recv(8, socket.MSG_WAITALL)
            self._say(0, spec.Connection.Start(0, 9, _PROPERTIES, "PLAIN", "en_US"))
            while data := self._socket.recv(1 << 20):
                self._buffer += data
                while self._one():
                    pass
                self._confirm()
        except OSError:
            pass
        finally:
            self._socket.close()

    def _one(self) -> bool:
        size, value = frame.decode_frame(self._buffer)
        if value is None:
            return False
        self._buffer = self._buffer[size:]
        if size > FRAME_MAX:
            self._say(0, spec.Connection.Close(501, "FRAME_ERROR - frame_too_large", 0, 0))
            return False
        number = getattr(value, "channel_number", 0)
        if isinstance(value, frame.Method):
            self._method(number, value.method)
        elif number in self._closing:
            pass
        elif isinstance(value, frame.Header):
            self._parts[number] += [value, b""]
            self._published(number)
        elif isinstance(value, frame.Body):
            self._parts[number][2] += value.fragment
            self._published(number)
        return True

    def _method(self, number: int, method: Any) -> None:
        if isinstance(method, spec.Channel.CloseOk):
            self._closing.discard(number)
        elif number in self._closing:
            pass
        elif isinstance(method, spec.Basic.Publish):
            self._parts[number] = [method]
            if self._server.blocked:
                self._say(0, spec.Connection.Blocked("low on memory"))
                self._server._unblocked.wait()
                self._say(0, spec.Connection.Unblocked())
        elif isinstance(method, spec.Exchange.Declare) and method.exchange not in (
            self._server.exchanges
        ):
            self._refuse(number, 404, f"NOT_FOUND - no exchange '{method.exchange}' in vhost '/'")
        elif isinstance(method, spec.Connection.Close):
            self._say(0, spec.Connection.CloseOk())
            self._socket.shutdown(socket.SHUT_RDWR)
        elif type(method) in _ANSWERS:
            if isinstance(method, spec.Confirm.Select):
                self._tags[number] = 0
            self._say(number, _ANSWERS[type(method)])

    def _published(self, number: int) -> None:
        method, header, body = self._parts[number]
        if len(body) < header.body_size:
            return
        refusal = self._server.refusal(method, header.properties, body)
        if refusal is not None:
            self._refuse(number, *refusal)
            return
        self._server.queues[self._server.exchanges.get(method.exchange, method.routing_key)].append(
            body
        )
        if number in self._tags:
            self._tags[number] += 1
            self._unsaid[number] = self._tags[number]

    def _refuse(self, number: int, code: int, text: str) -> None:
        self._server.closed_channels += 1
        self._unsaid.pop(number, None)
        self._tags.pop(number, None)
        self._closing.add(number)
        self._say(number, spec.Channel.Close(code, text, 60, 40))

    def _confirm(self) -> None:
        if not self._server.confirms:
            return
        for number, tag in self._unsaid.items():
            self._say(number, spec.Basic.Ack(tag, multiple=True))
        self._unsaid.clear()

    def _say(self, number: int, method: Any) -> None:
        self._socket.sendall(frame.Method(number, method).marshal())


_PROPERTIES = {"capabilities": {"publisher_confirms": True, "basic.nack": True}}
_ANSWERS = {
    spec.Connection.StartOk: spec.Connection.Tune(2047, FRAME_MAX, 0),
    spec.Connection.Open: spec.Connection.OpenOk(),
    spec.Channel.Open: spec.Channel.OpenOk(),
    spec.Channel.Close: spec.Channel.CloseOk(),
    spec.Confirm.Select: spec.Confirm.SelectOk(),
    spec.Exchange.Declare: spec.Exchange.DeclareOk(),
}
