"""Java libraries from Maven Central, kept in the user's cache folder."""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from integration.brokers.broker import BrokerError
from integration.brokers.native.cache import cache_folder, locked
from integration.brokers.native.command import output_of
from integration.brokers.native.debian import install_missing

_POM = """\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>broker-shield</groupId>
  <artifactId>fetch</artifactId>
  <version>1</version>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
_DEPENDENCY = """\
    <dependency>
      <groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>
    </dependency>"""


def jars(name: str, artifacts: Sequence[str], *, instead: str) -> Path:
    """The folder `name` with these artifacts ("group:artifact:version") and all they need.

    Fetched once and moved into place when complete, so that it is whole or not there.
    """
    folder = cache_folder() / name
    if not folder.is_dir():
        with locked(name):
            if not folder.is_dir():
                _fetch(artifacts, folder, instead)
    return folder


def _fetch(artifacts: Sequence[str], folder: Path, instead: str) -> None:
    install_missing({"mvn": "maven"}, instead=instead)
    print(f"fetching {' '.join(artifacts)} into {folder}", file=sys.stderr)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        (work / "pom.xml").write_text(_pom(artifacts))
        _copy_dependencies(work, instead)
        os.rename(work / "libs", folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _pom(artifacts: Sequence[str]) -> str:
    dependencies = (_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts)
    return _POM.format(dependencies="\n".join(dependencies))


def _copy_dependencies(work: Path, instead: str) -> None:
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libs"]
    try:
        output_of(["mvn", "-q", "-B", *goal], folder=work)
    except BrokerError as error:
        raise BrokerError(
            f"{error}\nLet Maven reach Maven Central (~/.m2/settings.xml may name a mirror), start"
            f" a Docker engine, or set {instead} to the address of a broker that runs."
        ) from None
