"""What the project promises besides its code: locks, image, compose file, Makefile, CI."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

import bridge
from bridge.config import load

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")


def compose() -> Any:
    return YAML(typ="safe", pure=True).load((ROOT / "docker-compose.yml").read_text())


# Locks


def locked(name: str) -> dict[str, tuple[Version, list[str]]]:
    """Name → version and hashes of a lock file."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            pinned = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line)
            assert pinned, f"{name}: not a pinned requirement: {line[:80]}"
            found[canonicalize_name(pinned[1])] = (
                Version(pinned[2]),
                re.findall(r"--hash=sha256:([0-9a-f]{64})\b", line),
            )
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_locks_hold_hashes_and_no_address(name: str) -> None:
    """Where packages come from is each machine's own business; what they are is not."""
    text = (ROOT / name).read_text()
    assert not re.search(r"://|--index-url|--find-links|--trusted-host|file:/|\s/[a-z]+/", text)
    assert locked(name)
    assert all(hashes for _, hashes in locked(name).values())


def test_locks_hold_for_other_machines_too() -> None:
    """A compiled package has wheels for several platforms and Python versions, all of them listed."""
    for name in ("confluent-kafka", "pydantic-core", "orjson", "aiohttp", "httptools", "fastavro"):
        assert len(locked("requirements.lock")[name][1]) >= 20, name


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"]),
        (
            "requirements-dev.lock",
            PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"],
        ),
        ("requirements-build.lock", PROJECT["build-system"]["requires"]),
    ],
)
def test_locks_are_up_to_date_with_the_project(name: str, wanted: list[str]) -> None:
    """Everything asked for is locked, in a version that was asked for. Renew them with: make lock"""
    for requirement in map(Requirement, wanted):
        version, _ = locked(name)[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{name}: {requirement.name} {version}"


def test_developers_test_what_users_run() -> None:
    """The development lock adds to the other and changes nothing in it."""
    assert locked("requirements.lock").items() <= locked("requirements-dev.lock").items()


# Version and licence


def test_version_changelog_and_licence_agree() -> None:
    version = PROJECT["project"]["version"]
    assert version == bridge.__version__
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence and "END OF TERMS AND CONDITIONS" in licence


# Image


def test_the_image_is_built_by_the_script_that_ci_runs_and_runs_as_nobody() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    images = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert images == ["python:3.12-slim"] * 2
    assert "RUN bash deploy/install.sh /opt/meisa-bridge" in lines
    user = next(line for line in lines if line.startswith("USER "))
    assert user.split()[1].split(":")[0].isdigit() and not user.startswith("USER 0")
    assert any(line.startswith("HEALTHCHECK") for line in lines) and any("/livez" in line for line in lines)
    assert "deploy/install.sh" in (ROOT / ".ci" / "run").read_text()


def test_the_build_context_has_what_the_image_copies() -> None:
    """Whatever COPY names exists and is let through by .dockerignore; so is all that install.sh reads."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE) for word in line.split()[:-1]
    ]
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == let_through
    read = set(re.findall(r"\$source/([\w./-]+)", (ROOT / "deploy" / "install.sh").read_text()))
    assert read <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name


# Compose


def test_the_compose_file_is_valid() -> None:
    """Against the Compose Specification's own schema, which tests/data/compose-spec holds."""
    schema = json.loads((ROOT / "tests" / "data" / "compose-spec" / "compose-spec.json").read_text())
    validator = jsonschema.Draft201909Validator(schema)
    assert [error.message for error in validator.iter_errors(compose())] == []
    broken = compose()
    broken["services"]["bridge"]["portz"] = []
    assert not validator.is_valid(broken)


def test_the_compose_file_gives_the_bridge_a_configuration_that_loads(tmp_path: Path) -> None:
    """The sample configuration, under the environment that compose sets: right hosts, open dashboard with a token."""
    services = compose()["services"]
    environ = {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in services["bridge"]["environment"].items()
    }
    settings = load(ROOT / "config" / "bridge.yaml", environ)
    assert settings.kafka.bootstrap_servers.split(":")[0] in services
    assert settings.meisa.base_url.startswith("http://sandbox:8900/") and "sandbox" in services
    assert settings.meisa.environment == "test"
    assert settings.admin.address == ("0.0.0.0", 8080)
    assert int(services["bridge"]["stop_grace_period"].rstrip("s")) > settings.delivery.shutdown_timeout
    created = dict(re.findall(r"([\w.-]+):(\d+)", services["topics"]["command"][0].partition("; do")[0]))
    assert created.keys() == {*settings.topics, settings.dead_letters.topic}


def test_what_compose_starts_exists() -> None:
    """What is waited for has the health check that tells; commands parse; volumes are there; ports are local."""
    document = compose()
    services = document["services"]
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            assert name in services
            assert how["condition"] != "service_healthy" or "healthcheck" in services[name]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in document["volumes"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "nothing of a local stack is open to the network"
    from bridge.cli.play import sandbox

    command = services["sandbox"]["command"]
    assert command[0] == "sandbox"
    options = sandbox.make_context("sandbox", list(command[1:])).params
    assert (options["host"], options["port"]) == ("0.0.0.0", 8900)


def test_a_volume_mounted_configuration_has_its_rules() -> None:
    """Compose mounts config/ alone, so what bridge.yaml names must lie below it."""
    settings = load(ROOT / "config" / "bridge.yaml", {"MEISA_API_KEY": "meisa_test_a"})
    for pattern in settings.rules:
        assert list(settings.base_dir.glob(pattern)), pattern


# Makefile and CI


def make(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("make")
    assert program, "make is what users are told to type"
    return subprocess.run(
        [program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], **environ},
    )


def test_make_lists_its_targets() -> None:
    """`make` alone explains; every target that is meant for people has its line."""
    listed = {line.split()[1] for line in make().stdout.splitlines()}
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    assert listed == set(phony[1].split()) >= {"help", "demo", "test", "check", "bench"}


def test_make_installs_from_the_locks_alone(tmp_path: Path) -> None:
    """A dry run shows: hashes required, the package itself without its dependencies, no index named."""
    for target, lock in (("demo", "requirements.lock"), ("test", "requirements-dev.lock")):
        steps = make("-n", target, f"VENV={tmp_path}/venv").stdout.splitlines()
        installs = [step for step in steps if "pip install" in step]
        assert any(lock in step for step in installs)
        for step in installs:
            assert "--require-hashes" in step or "--no-deps --no-build-isolation" in step
            assert "://" not in step and "--index" not in step
    assert not any(
        "requirements-dev.lock" in step for step in make("-n", "demo", f"VENV={tmp_path}/venv").stdout.splitlines()
    )


def test_make_refuses_an_old_python_with_a_way_out(tmp_path: Path) -> None:
    """Older than 3.11, or none at all: said plainly, and nothing is left behind."""
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && { echo "Python 3.9.2"; exit 0; }\nexit 1\n')
    old.chmod(0o755)
    for python, says in ((str(old), "Python 3.9.2"), (str(tmp_path / "none"), "none")):
        done = make("demo", f"PYTHON={python}", f"VENV={tmp_path}/venv")
        assert done.returncode != 0
        assert "needs Python 3.11 or newer" in done.stderr and says in done.stderr
        assert "make demo PYTHON=python3.12" in done.stderr
        assert not (tmp_path / "venv").exists()


def test_ci_runs_everything_strictly() -> None:
    """The script stops at the first failure and calls what developers call."""
    text = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in text
    for step in ("make check", "make test", "make demo", "deploy/install.sh", "pip-audit"):
        assert step in text


@pytest.mark.parametrize("script", [".ci/run", "deploy/install.sh"])
def test_scripts_are_bash_that_parses(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o100, "executable"
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_an_audit_that_checked_nothing_does_not_claim_safety(tmp_path: Path) -> None:
    """Skipped packages are counted as such; a finding is told with its fix and fails."""
    report = tmp_path / "audit.json"

    def audited(*packages: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        report.write_text(json.dumps({"dependencies": packages}))
        script = str(ROOT / "deploy" / "audit_summary.py")
        return subprocess.run([sys.executable, script, str(report)], capture_output=True, text=True, timeout=30)

    skipped = {"name": "a", "skip_reason": "not found"}
    sound = {"name": "b", "version": "1", "vulns": []}
    bad = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
    nothing = audited(skipped)
    assert (nothing.returncode, nothing.stdout.splitlines()[0]) == (0, "checked 0 of 1 packages, 0 findings")
    found = audited(skipped, sound, bad)
    assert found.returncode == 1
    assert found.stdout.splitlines()[:2] == ["c 2: CVE-1, fixed in 2.1", "checked 2 of 3 packages, 1 findings"]
