"""kafka-python's own integration tests of its clients pass with our classes in their place.

They come from the source distribution of the version that is installed; none of them is kept here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import pytest
from kafka import KafkaProducer

from integration.brokers.sessions import require_sessions_of

ROOT = Path(__file__).parents[1]
AT_LEAST = {"producer": 17, "consumer": 17}  # in 3.0.12
SHORTEST_SESSION_MS = 3000
FOR_OLDER_BROKERS = {"test_kafka_consumer_offsets_for_time_old"}
WIDE = """
[[rules]]
match = "*"
quota = [{ rate = "1000000/s", burst = 1000000 }, { rate = "900MiB/s", per = "key" }]
in_flight = { messages = 100_000, bytes = "64MiB" }
over_limit = ["wait 1s", "raise"]

[[rules]]
match = "*"
direction = "consume"
quota = [{ rate = "1000000/s", burst = 1000000 }, { rate = "900MiB/s" }]
in_flight = { messages = 100_000, bytes = "64MiB" }
max_age = "30d"
over_limit = ["wait", "drop"]
"""
# What the distribution leaves out: the package, and the processes of a Kafka that it starts itself.
SERVICE = """
class ExternalService:
    def __init__(self, host, port):
        pass

    def open(self):
        pass

    def stop(self):
        pass


SpawnedService = None
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tests of the kafka-python that is installed, and nothing else of it."""
    folder = tmp_path_factory.mktemp("kafka-python")
    wanted = f"kafka-python=={metadata.version('kafka-python')}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
    subprocess.run([*pip, "--no-deps", "--no-binary", ":all:", wanted], check=True, timeout=120)
    (archive,) = folder.glob("*.tar.gz")
    unpack_tests(archive, folder)
    (tree,) = folder.glob("*/test")
    (tree / "__init__.py").touch()  # else Python's own package `test` is found
    (tree / "service.py").write_text(SERVICE)
    (tree.parent / "pytest.ini").write_text("[pytest]\n")
    return tree.parent


def unpack_tests(archive: Path, folder: Path) -> None:
    """Write the files of the tests, and nothing outside of the folder.

    By hand: the first Python 3.11, Debian's among them, have no `extractall(filter=...)`.
    """
    with tarfile.open(archive) as distribution:
        for file in distribution:
            parts = PurePosixPath(file.name).parts
            if file.isreg() and "test" in parts and ".." not in parts and parts[0] != "/":
                path = folder.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(distribution.extractfile(file).read())


@pytest.mark.parametrize("client", AT_LEAST)
@pytest.mark.parametrize("settings", ["", WIDE], ids=["no rules", "wide rules"])
def test_the_clients_own_tests_pass(kafka, upstream, tmp_path, settings, client):
    """All run and pass, none is skipped, and the ledger accounts for their messages."""
    require_sessions_of(SHORTEST_SESSION_MS, kafka.address)
    (tmp_path / "shield.toml").write_text(settings)
    report = tmp_path / "report.xml"
    tests = f"test/integration/test_{client}_integration.py"
    command = [sys.executable, "-m", "pytest", tests, "-p", "integration.upstream.kafka_in_place"]
    run = subprocess.run(
        [*command, f"--junit-xml={report}"],
        cwd=upstream,
        env=os.environ
        | {
            "KAFKA_URI": f"kafka://{kafka.address}",
            "KAFKA_VERSION": version_of(kafka.address),
            "KAFKA_ROOT": str(upstream),  # must be there; what it would start is not ours
            "PYTHONPATH": str(ROOT),
            "SHIELD_CONFIG": str(tmp_path / "shield.toml"),
        },
        capture_output=True,
        text=True,
        timeout=150,
    )
    cases = list(ElementTree.parse(report).iter("testcase"))
    not_passed = {case.get("name") for case in cases if len(case)}
    assert not_passed <= FOR_OLDER_BROKERS, run.stdout
    assert run.returncode == 0, run.stdout
    assert len(cases) >= AT_LEAST[client]


def version_of(address: str) -> str:
    """What kafka-python takes the broker's version to be."""
    with KafkaProducer(bootstrap_servers=address) as producer:
        return ".".join(map(str, producer.config["api_version"]))
