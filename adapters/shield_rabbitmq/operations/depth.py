"""How many messages wait in RabbitMQ's queues, over a connection of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pika import BlockingConnection
from pika.adapters.blocking_connection import BlockingChannel
from pika.connection import Parameters
from pika.exceptions import ChannelClosedByBroker

from shield import URL, BacklogReader, BacklogTarget
from shield_rabbitmq.operations.management import Management, UnreachableError

NO_SUCH = 404
HOW = 'name the queue, as destination = "orders"'


class DepthReader(BacklogReader):
    """Asks for queues by passive declares: they tell of ready messages, not of those handed out.

    Or asks a management API, for those that say which. Where the broker refuses one it closes the
    channel; another is opened for the next.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._connection = BlockingConnection(parameters)
        self._channel: BlockingChannel | None = None

    def read(self, places: Sequence[BacklogTarget]) -> Mapping[BacklogTarget, int | str]:
        """Return the depth of each queue."""
        self._connection.process_data_events(0)  # heartbeats
        found = {p: self._depth(p.destination) for p in places if p.via is None}
        for via in {place.via for place in places if place.via is not None}:
            found |= self._managed(via, [place for place in places if place.via == via])
        return found

    def _managed(self, via: URL, places: Sequence[BacklogTarget]) -> dict[BacklogTarget, int | str]:
        """Ask one management API; where it does not answer, once for all of them."""
        management = Management(via, self._parameters)
        try:
            return {place: management.depth(place.destination) for place in places}
        except UnreachableError as error:
            return dict.fromkeys(places, str(error))

    def _depth(self, queue: str) -> int | str:
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
        try:
            return int(self._channel.queue_declare(queue, passive=True).method.message_count)
        except ChannelClosedByBroker as error:
            how = f"; {HOW}" if error.reply_code == NO_SUCH else ""
            return f"{error.reply_code} {error.reply_text}{how}"

    def close(self) -> None:
        """Disconnect."""
        if self._connection.is_open:
            self._connection.close()
