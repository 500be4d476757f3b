"""docs/deploy.md: its commands work as they stand there, and its figures are those of the files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from bridge.cli import main
from bridge.config.settings import Delivery
from tests.support.manifests import read_yaml, rendered, the

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
CONSOLE = [
    line.strip().removeprefix("$ ")
    for block in re.findall(r"^ *```console\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


def test_the_configuration_is_checked_by_the_commands_given() -> None:
    """With the variables that the page exports, from the repository's folder; each ends with 0."""
    environ = dict(word.split("=", 1) for line in CONSOLE if line.startswith("export ") for word in line.split()[1:])
    commands = [shlex.split(line) for line in CONSOLE if line.startswith("meisa-bridge ")]
    assert [words[1] for words in commands] == ["check", "test"]
    for words in commands:
        arguments = [str(ROOT / word) if word.endswith(".yaml") else word for word in words[1:]]
        done = CliRunner().invoke(main, arguments, env=environ)
        assert done.exit_code == 0, done.output


def test_commands_name_files_that_are_there() -> None:
    """In whatever program's command: what looks like a path of this repository is one."""
    named = {path for line in CONSOLE for path in re.findall(r"(?<![\w/.])((?:deploy|config)(?:/[\w.-]+)*)", line)}
    assert {"deploy/install.sh", "deploy/kubernetes", "deploy/systemd/meisa-bridge.service"} <= named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_secret_has_what_the_configuration_reads() -> None:
    """The command makes the files that bridge.yaml names, and in the folder that the page says."""
    (command,) = [line for line in CONSOLE if line.startswith("kubectl create secret")]
    made = set(re.findall(r"--from-(?:file|literal)=([\w-]+)=", command))
    text = (ROOT / "deploy" / "kubernetes" / "settings" / "bridge.yaml").read_text()
    read = re.findall(r"^[^#\n]*\{file: /run/secrets/meisa-bridge/([\w-]+)\}", text, re.MULTILINE)
    assert made == set(read)


def test_the_times_to_stop_are_those_of_the_files() -> None:
    pod = the(rendered(ROOT / "deploy" / "kubernetes"), "StatefulSet")["spec"]["template"]["spec"]
    (compose,) = read_yaml(ROOT / "docker-compose.yml")
    unit = (ROOT / "deploy" / "systemd" / "meisa-bridge.service").read_text()
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    grace = (pod["terminationGracePeriodSeconds"], compose["services"]["bridge"]["stop_grace_period"].rstrip("s"), stop)
    (told,) = re.findall(r"`TimeoutStopSec`: (\d+), (\d+) and (\d+) here", PAGE)
    assert tuple(map(int, grace)) == tuple(map(int, told))
    assert f"`delivery.shutdown_timeout` ({Delivery.model_validate({}).shutdown_timeout:g} s)" in PAGE


def test_an_image_with_handlers_installs_into_the_environment_that_runs() -> None:
    """The image's own path, and back to its user."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    (target,) = re.findall(r"^RUN bash deploy/install.sh (\S+)$", dockerfile, re.MULTILINE)
    (snippet,) = re.findall(r"^```dockerfile\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert f"pip --python {target}/bin/python install" in snippet
    users = re.findall(r"^USER (\S+)$", dockerfile, re.MULTILINE)
    assert snippet.strip().splitlines()[-1] == f"USER {users[-1]}"


def test_links_within_the_page_lead_to_headings() -> None:
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    assert [anchor for anchor in re.findall(r"\]\(#([^)]+)\)", PAGE) if anchor not in headings] == []
