"""Every code block of the README and of docs/ runs, against the embedded Kafka."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import kafka
import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from typer.testing import CliRunner

import shield.shield
from docs.generate import PAGE, page
from docs.ways import PICTURE, WAYS, picture
from shield.cli import app
from shield.config.registry import Registry
from shield.config.settings import load_settings
from shield.testing import TransportContract
from shield_kafka.demo.embedded import API_VERSION, EmbeddedKafka

ROOT = Path(__file__).parents[2]
ON_A_REAL_BROKER = {"rabbitmq.md"}  # in integration/test_docs.py
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKE_TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.fixture
def bootstrap() -> Iterator[str]:
    """Each page has a broker of its own: no group of another one is still to be left."""
    cluster = EmbeddedKafka()
    yield cluster.bootstrap
    del cluster


@pytest.fixture
def user_folder(tmp_path, monkeypatch, bootstrap) -> Path:
    """Where a reader would try things: a folder with the README's shield.toml, no variables set."""
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "shield.toml").write_text(blocks[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHIELD_CONFIG", raising=False)
    monkeypatch.setattr(shield.shield, "_default", None)
    for client in (kafka.KafkaProducer, kafka.KafkaConsumer):
        monkeypatch.setitem(client.DEFAULT_CONFIG, "api_version", API_VERSION)
    return tmp_path


@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if path.name not in ON_A_REAL_BROKER],
    ids=lambda path: path.name,
)
def test_python_blocks_run(path, user_folder, bootstrap):
    """What the page shows is what a reader can paste."""
    copy = user_folder / path.name
    copy.write_text(path.read_text().replace("localhost:9092", bootstrap))
    document = Sybil([PythonCodeBlockParser()]).parse(copy)
    for example in document.examples():
        if "amqp://localhost" not in str(example.parsed):  # in integration/test_docs.py
            example.evaluate()


CONTRACT = [name for name in dir(TransportContract) if name.startswith("test_")]


@pytest.mark.parametrize("name", CONTRACT)
def test_the_transport_of_the_plugins_page_keeps_its_contract(name, user_folder):
    """What a reader starts from is whole."""
    document = Sybil([PythonCodeBlockParser()]).parse(ROOT / "docs" / "plugins.md")
    for example in document.examples():
        example.evaluate()
    getattr(document.namespace["TestMemory"](), name)()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_toml_blocks_are_valid_settings(path, user_folder):
    """Each block of settings loads; one of project metadata is left to packaging."""
    for number, text in enumerate(blocks(path, "toml")):
        if text.startswith("[project"):
            continue
        file = user_folder / f"{number}.toml"
        file.write_text(text)
        shield.Shield(load_settings(file))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_exist(path):
    """Each command is a make target, or one of `shield` that knows the options shown."""
    for text in blocks(path, "bash"):
        for line in filter(None, text.splitlines()):
            words = line.partition("#")[0].split()
            if words[0] == "make":
                assert words[1] in MAKE_TARGETS, line
            elif words[0] == "shield":
                plain = [word for word in words[1:] if not word.isupper()]
                assert CliRunner().invoke(app, [*plain, "--help"]).exit_code == 0, line
            else:
                assert words[:2] == ["python", "-m"], line


def test_the_settings_page_is_what_the_models_say():
    """`python docs/generate.py` has been run since the models changed."""
    assert PAGE.read_text() == page()


def blocks(path: Path, language: str) -> list[str]:
    parser = CodeBlockParser(language=language, evaluator=lambda example: None)
    return [example.parsed for example in Sybil([parser]).parse(path).examples()]


def test_the_picture_of_the_ways_is_what_its_script_draws():
    """`python docs/ways.py` has been run, and no action is left out of picture and page."""
    assert PICTURE.read_text() == picture()
    actions = set(Registry().actions)
    assert {way.action.split()[0] for way in WAYS} == actions
    page = (ROOT / "docs" / "over_limit.md").read_text()
    assert set(re.findall(r"^\| `([a-z]+)", page, re.MULTILINE)) == actions
