"""Redis from Debian's package."""

from pathlib import Path

from integration.brokers.native.base import NativeBroker
from integration.brokers.native.debian import install_missing
from integration.brokers.ports import free_ports
from integration.brokers.ready import redis_answers
from integration.brokers.redis_settings import REDIS_KEEPS_DATA


class NativeRedis(NativeBroker):
    """One Redis; each write is in its file before it is answered, so data outlive `kill`."""

    name = "redis"

    def __init__(self) -> None:
        (self._port,) = free_ports(1)
        self.address = f"redis://127.0.0.1:{self._port}/0"

    def install(self) -> None:
        install_missing({"redis-server": "redis-server"}, instead="SHIELD_TEST_REDIS")

    def prepare(self, folder: Path) -> None:
        """It needs nothing but a folder."""

    def command(self, folder: Path) -> list[str]:
        listen = ["--bind", "127.0.0.1", "--port", str(self._port)]
        return ["redis-server", *listen, "--dir", str(folder), *REDIS_KEEPS_DATA]

    def answers(self) -> bool:
        return redis_answers(self.address)
