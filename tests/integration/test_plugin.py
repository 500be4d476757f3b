"""A plug-in with handlers: installed as users install one, found by its entry point, tested, and carried out."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge.sandbox.children import Child
from bridge.sandbox.options import TEST_KEY
from tests.support.inprocess import Place
from tests.support.kafka import EmbeddedKafka
from tests.support.service import sandbox, wait_for

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "plugins" / "acme-lifecycle"
CONFIG = PLUGIN / "example" / "bridge.yaml"

pytestmark = pytest.mark.xdist_group("plugin")  # it is installed once


def environ(*folders: Path) -> dict[str, str]:
    path = os.pathsep.join(map(str, (ROOT, *folders)))
    return {**os.environ, "PYTHONPATH": path, "MEISA_API_KEY": TEST_KEY, "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip has installed it into, from its source and without a network."""
    folder = tmp_path_factory.mktemp("plugin")
    source, target = folder / "source", folder / "target"
    shutil.copytree(PLUGIN, source)  # building writes beside it
    how = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *how, "--target", target, source], check=True, timeout=120)
    return target


def command(*words: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "bridge", *words, "-c", str(CONFIG)]
    return subprocess.run(line, env=dict(environ), capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_its_handlers_are_found_checked_and_tested(installed: Path) -> None:
    """Nothing in the configuration names it; where it is not installed, the tests of its handlers say so."""
    checked = command("check", "--offline", "--strict", environ=environ(installed))
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout
    tested = command("test", "--json", environ=environ(installed))
    assert tested.returncode == 0, tested.stderr
    names = {each["name"]: each["ending"] for each in json.loads(tested.stdout)["tests"]}
    assert len(names) == 4 and set(names.values()) == {"passed"}
    without = command("check", "--offline", environ=environ())
    assert without.returncode == 1 and "MB191" in without.stdout


@pytest.mark.slow
def test_what_its_handlers_yield_is_carried_out(installed: Path, embedded_kafka: EmbeddedKafka, tmp_path: Path) -> None:
    with sandbox() as meisa:
        place = Place(embedded_kafka, tmp_path, f"{meisa.url}/api/v1", partitions=1)
        place.settings()
        lines = [{"cents": 30000, "every": "year"}, {"cents": 1050, "every": "month"}]
        place.produce(
            {"type": "invoice.paid", "data": {"email": "a@example.com", "number": "7", "lines": lines}},
            {"type": "invoice.paid", "data": {"email": "b@example.com", "number": "8"}},
        )
        bridge = Child("the bridge", ["run", "-c", str(place.config)], environ(installed))
        try:
            bridge.wait_for(re.compile("started: events are taken in"))
            wait_for(lambda: place.committed() == 2, "both events")
            bridge.end()
        finally:
            bridge.close()
        (upsert,) = [each["body"] for each in meisa.ledger() if each["endpoint"] == "upsert"]
        assert upsert["custom_fields"] == {"mrr": 35.5, "last_invoice": "7"}
        ((_, letter),) = place.letters()
        assert (letter["kind"], letter["rule"]) == ("rule", "acme-invoice") and "data.lines" in letter["message"]


@pytest.mark.slow
def test_its_types_are_checked_against_the_bridges_own(tmp_path: Path) -> None:
    """`bridge` is typed: a field that an action does not have is found before anything runs."""

    def checked(folder: Path) -> subprocess.CompletedProcess[str]:
        line = ["-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path / "cache"), str(folder)]
        path = os.pathsep.join(map(str, (folder.parent, ROOT)))
        return subprocess.run(
            [sys.executable, *line], env={**os.environ, "MYPYPATH": path}, capture_output=True, text=True, timeout=180
        )

    source = PLUGIN / "src" / "acme_lifecycle"
    good = checked(source)
    assert good.returncode == 0, good.stdout
    wrong = tmp_path / "src" / "acme_lifecycle"
    shutil.copytree(source, wrong)
    handlers = wrong / "handlers.py"
    handlers.write_text(handlers.read_text().replace("email=data[", "emial=data[", 1))
    found = checked(wrong)
    assert found.returncode == 1 and "emial" in found.stdout
