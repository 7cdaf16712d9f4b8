"""How many messages wait in RabbitMQ's queues, over a connection of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pika import BlockingConnection
from pika.adapters.blocking_connection import BlockingChannel
from pika.connection import Parameters
from pika.exceptions import ChannelClosedByBroker

from shield import BacklogReader, Place

NO_SUCH = 404
HOW = 'name the queue, as destination = "orders"'


class DepthReader(BacklogReader):
    """Asks for queues by passive declares: they tell of ready messages, not of those handed out.

    Where the broker refuses one it closes the channel; another is opened for the next.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._connection = BlockingConnection(parameters)
        self._channel: BlockingChannel | None = None

    def read(self, places: Sequence[Place]) -> Mapping[Place, int | str]:
        """Return the depth of each queue."""
        self._connection.process_data_events(0)  # heartbeats
        return {place: self._depth(place.destination) for place in places}

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
