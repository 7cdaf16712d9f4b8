"""RabbitMQ from Debian's package, as a node that shares nothing with the system's own."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from integration.brokers.broker import RabbitMQ
from integration.brokers.native.base import NativeBroker
from integration.brokers.native.command import output_of
from integration.brokers.native.debian import install_missing
from integration.brokers.native.process import Process
from integration.brokers.ports import free_ports
from integration.brokers.ready import accepts, amqp_answers, wait_until

# Those in /usr/sbin change to the user rabbitmq, who may not write into our folder.
_PROGRAMS = Path("/usr/lib/rabbitmq/bin")
_SERVER, _CTL = str(_PROGRAMS / "rabbitmq-server"), str(_PROGRAMS / "rabbitmqctl")


class NativeRabbitMQ(NativeBroker, RabbitMQ):
    """One RabbitMQ node with the management plugin and an epmd of its own.

    Erlang would start epmd, its register of nodes, as a daemon that outlives everything; an epmd
    that is there already is used instead, so we start it as a child of ours.
    """

    name = "rabbitmq"
    _epmd: Process | None = None

    def __init__(self) -> None:
        self._port, self._management_port, self._dist_port, self._epmd_port = free_ports(4)
        self.address = f"amqp://guest:guest@127.0.0.1:{self._port}/%2F"
        self.management_url = f"http://guest:guest@127.0.0.1:{self._management_port}"

    def install(self) -> None:
        install_missing({_SERVER: "rabbitmq-server"}, instead="SHIELD_TEST_AMQP")

    def prepare(self, folder: Path) -> None:
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self._port}\n"
            f"management.tcp.ip = 127.0.0.1\n"
            f"management.tcp.port = {self._management_port}\n"
            "loopback_users = none\n"
            "log.console = true\n"
            "log.file = false\n"
        )
        (folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        self._start_epmd(folder)

    def _start_epmd(self, folder: Path) -> None:
        command = ["epmd", "-address", "127.0.0.1", "-port", str(self._epmd_port)]
        self._epmd = Process(command, folder, "epmd.log")
        listens = partial(accepts, "127.0.0.1", self._epmd_port)
        wait_until(listens, name="epmd", within_s=60, is_alive=self._epmd.is_alive)

    def command(self, folder: Path) -> list[str]:
        return [_SERVER]

    def environment(self, folder: Path) -> Mapping[str, str]:
        return {
            "RABBITMQ_NODENAME": f"shield{self._port}@localhost",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_CRASH_DUMP": os.devnull,
            "HOME": str(folder),  # where Erlang keeps the cookie that lets rabbitmqctl in
            "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the broker, not its parent
        }

    def answers(self) -> bool:
        return amqp_answers(self.address)

    def stop(self) -> None:
        super().stop()
        if self._epmd:
            self._epmd.kill()
            self._epmd = None

    def ctl(self, *arguments: str) -> str:
        return output_of([_CTL, *arguments], env=self.environment(self.folder))
