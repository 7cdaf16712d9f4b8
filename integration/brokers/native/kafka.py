"""Apache Kafka as one Java process: broker and controller in one (KRaft)."""

from pathlib import Path

from integration.brokers.broker import Setting
from integration.brokers.kafka_settings import kafka_settings
from integration.brokers.native.base import NativeBroker
from integration.brokers.native.command import output_of
from integration.brokers.native.debian import install_missing
from integration.brokers.native.maven import jars
from integration.brokers.ports import free_ports
from integration.brokers.ready import kafka_answers

_VERSION = "4.1.1"
_ARTIFACTS = (
    f"org.apache.kafka:kafka_2.13:{_VERSION}",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",  # without it Kafka logs nothing
)
_CLUSTER_ID = "YnJva2VyLXNoaWVsZC10ZQ"  # any 16 bytes in base64
# The formatter lives for a second: what makes a JVM start sooner is all that counts for it.
_SHORT_LIVED = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class NativeKafka(NativeBroker):
    """One Kafka node; overrides are its own settings: `auto_create_topics_enable=False`."""

    name = "kafka"

    def __init__(self, **overrides: Setting) -> None:
        self._overrides = overrides
        port, self._controller_port = free_ports(2)
        self.address = f"127.0.0.1:{port}"

    def install(self) -> None:
        install_missing({"java": "default-jre-headless"}, instead="SHIELD_TEST_KAFKA")
        self._jars = jars(f"kafka-{_VERSION}", _ARTIFACTS, instead="SHIELD_TEST_KAFKA")

    def prepare(self, folder: Path) -> None:
        settings = self._layout(folder) | kafka_settings(self._overrides)
        lines = (f"{name}={value}\n" for name, value in settings.items())
        (folder / "server.properties").write_text("".join(lines))
        self._format(folder)

    def command(self, folder: Path) -> list[str]:
        return self._java("-Xmx768m", "-Dlog4j2.level=WARN", "kafka.Kafka", "server.properties")

    def answers(self) -> bool:
        return kafka_answers(self.address)

    def _layout(self, folder: Path) -> dict[str, str]:
        controller = f"127.0.0.1:{self._controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(folder / "data"),
        }

    def _format(self, folder: Path) -> None:
        tool = ("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", "server.properties")
        output_of(self._java(*_SHORT_LIVED, *tool), folder=folder)

    def _java(self, *arguments: str) -> list[str]:
        return ["java", "-cp", f"{self._jars}/*", *arguments]
