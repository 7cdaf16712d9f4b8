"""RabbitMQ's management API: what waits in a queue, by its own count."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import quote

from pika.connection import Parameters

from shield import URL

PATIENCE_S = 3.0
SAID = {
    401: "the user or the password is wrong, or it has no tag management or monitoring",
    403: "the user may not read that: it needs rights on the virtual host",
    404: 'there is no such queue; name it, as destination = "orders"',
}


class UnreachableError(Exception):
    """The API itself does not answer, whatever is asked."""


class Management:
    """Asks one management API. Its numbers lag behind by up to five seconds, as RabbitMQ counts.

    Args:
        url: where it is; with the user and password to ask as, else those of `parameters`.
        parameters: the publisher's, for its virtual host.
    """

    def __init__(self, url: URL, parameters: Parameters) -> None:
        self._url = url
        self._base = f"{str(url).rstrip('/')}/api/queues/{quote(parameters.virtual_host, safe='')}"
        own = parameters.credentials
        user = url.username if url.username is not None else getattr(own, "username", "")
        password = url.password if url.username is not None else getattr(own, "password", "")
        token = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
        self._authorization = f"Basic {token}"

    def depth(self, queue: str) -> int | str:
        """Return how many messages are ready or handed out, or in words why that is not known.

        Raises:
            UnreachableError: the API does not answer, or is none.
        """
        request = urllib.request.Request(f"{self._base}/{quote(queue, safe='')}?columns=messages")
        request.add_unredirected_header("Authorization", self._authorization)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                found = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code} from {self._url}: {SAID.get(error.code, error.reason)}"
        except (OSError, HTTPException, ValueError) as error:
            raise UnreachableError(f"no answer from {self._url}: {error}") from None
        messages = found.get("messages") if isinstance(found, dict) else None
        return messages if isinstance(messages, int) else "it has not been counted yet"
