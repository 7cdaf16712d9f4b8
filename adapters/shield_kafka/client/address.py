"""A Kafka cluster as a URL names it. Imports no client: settings are read where none is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from shield import URL

FORM = "kafka://[user:password@]host:port[,host:port]/topic[?option=value]"
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_CODECS = ("gzip", "snappy", "lz4", "zstd")
_CHOICES = {
    "security_protocol": _PROTOCOLS,
    "sasl_mechanism": _MECHANISMS,
    "compression_type": _CODECS,
}
_TEXTS = ("client_id", "ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_password")
_CONNECTS = (
    *("api_version", "bootstrap_servers", "client_id", "proxy_url", "sasl_", "security_"),
    *("socks5_proxy", "ssl_"),
)
"""How the names of what says where a cluster is, and who to be there, begin."""
_PRODUCER_ONLY = ("compression_type", "linger_ms")
_CONSUMER_ONLY = ("group_id",)


@dataclass(frozen=True)
class KafkaAddress:
    """Where a cluster is, who to be there, and which topic is meant."""

    servers: tuple[str, ...]
    topic: str
    """The topic; empty where the URL names none."""
    configs: dict[str, Any] = field(repr=False)
    """What the URL says, in kafka-python's words."""

    @property
    def origin(self) -> str:
        """What is the same for all URLs of the cluster that name the same servers."""
        return "kafka://" + ",".join(sorted(self.servers))

    @property
    def connect_configs(self) -> dict[str, Any]:
        """What every client of kafka-python's needs to connect."""
        return {name: v for name, v in self.configs.items() if name.startswith(_CONNECTS)}

    @property
    def producer_configs(self) -> dict[str, Any]:
        """What kafka-python's producer is given."""
        return {name: v for name, v in self.configs.items() if name not in _CONSUMER_ONLY}

    @property
    def consumer_configs(self) -> dict[str, Any]:
        """What kafka-python's consumer is given."""
        return {name: v for name, v in self.configs.items() if name not in _PRODUCER_ONLY}


def address_of(url: URL) -> KafkaAddress:
    """Read a URL.

    Raises:
        ValueError: it is none of Kafka's, or kafka-python is not installed.
    """
    if find_spec("kafka") is None:
        raise ValueError("kafka:// needs kafka-python: pip install 'broker-shield[kafka]'")
    servers = tuple(url.hosts.split(","))
    if not all(host.partition(":")[0] for host in servers):
        raise ValueError(f"{url} has no host; allowed is {FORM}")
    topic, *more = url.segments(2) or [""]
    if more or (topic and not _TOPIC.fullmatch(topic)) or topic in (".", ".."):
        raise ValueError(
            f"{url.path!r} is no topic's name; allowed are letters, digits and . _ - (249 of them)"
        )
    return KafkaAddress(servers, topic, {"bootstrap_servers": list(servers), **_configs(url)})


def address_like(configs: Mapping[str, Any], topic: str) -> KafkaAddress:
    """Return the address of a topic on the cluster that a client's configuration connects to."""
    servers = configs["bootstrap_servers"]
    names = servers.split(",") if isinstance(servers, str) else servers
    connects = {name: v for name, v in configs.items() if name.startswith(_CONNECTS)}
    return KafkaAddress(tuple(name.strip() for name in names), topic, connects)


def _configs(url: URL) -> dict[str, Any]:
    given = url.options_of(*_CHOICES, *_TEXTS, *_CONSUMER_ONLY, "linger_ms", "api_version")
    plain = (*_TEXTS, *_CONSUMER_ONLY)
    configs: dict[str, Any] = {name: given[name] for name in plain if name in given}
    for name in _CHOICES.keys() & given.keys():
        configs[name] = _chosen(name, given[name])
    if "linger_ms" in given:
        configs["linger_ms"] = _milliseconds(given["linger_ms"])
    if "api_version" in given:
        configs["api_version"] = _version(given["api_version"])
    if url.username is not None:
        configs |= _login(url.username, url.password or "", configs)
    return configs


def _login(username: str, password: str, configs: dict[str, Any]) -> dict[str, Any]:
    protocol = configs.get("security_protocol", "SASL_SSL")
    if not protocol.startswith("SASL_"):
        raise ValueError(
            f"security_protocol={protocol} takes no user; allowed are SASL_SSL and SASL_PLAINTEXT"
        )
    return {
        "security_protocol": protocol,
        "sasl_mechanism": configs.get("sasl_mechanism", "PLAIN"),
        "sasl_plain_username": username,
        "sasl_plain_password": password,
    }


def _chosen(name: str, value: str) -> str:
    if value not in _CHOICES[name]:
        raise ValueError(f"{name}: found {value!r}; allowed: {', '.join(_CHOICES[name])}")
    return value


def _milliseconds(text: str) -> int:
    if not text.isdecimal() or int(text) > 1000:
        raise ValueError(f"linger_ms: found {text!r}; allowed is 0 to 1000")
    return int(text)


def _version(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(\.\d+){1,2}", text):
        raise ValueError(f"api_version: found {text!r}; allowed is a broker's version, as 3.9")
    return tuple(map(int, text.split(".")))
