"""The image, the local stack and the systemd unit: what they promise, held to the code and to their own tools."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.config import load
from bridge.config.settings import Delivery
from bridge.kafka.properties import REFUSED
from tests.support.manifests import read_yaml
from tests.support.needs import require_or_skip
from tests.support.programs import go_program

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = ROOT / "deploy" / "systemd" / "meisa-bridge.service"
COMPOSE: dict[str, Any] = read_yaml(ROOT / "docker-compose.yml")[0]
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RUNNING = {name: service for name, service in SERVICES.items() if service.get("restart") != "no"}


# The image


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile with its arguments, continuation lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], " ".join(line.split()[1:])) for line in joined.splitlines()]


def test_the_image_is_linted() -> None:
    """Versions are named; nothing is fetched but by the script with its hashes; the last stage ends as nobody."""
    made = instructions()
    for image in [arguments.split()[0] for name, arguments in made if name == "FROM"]:
        assert re.search(r":\d+\.\d+", image), f"{image}: a version"
    last = made[max(number for number, (name, _) in enumerate(made) if name == "FROM") :]
    names = [name for name, _ in last]
    (user,) = [arguments for name, arguments in last if name == "USER"]
    assert int(user.split(":")[0]) > 0 and int(user.split(":")[1]) > 0
    assert not any(name == "RUN" for name, _ in last[names.index("USER") :]), "nothing is made as another user"
    assert "ADD" not in names
    for _, arguments in made:
        assert not re.search(r"(?i)curl|wget|apt-get|pip install|:latest", arguments)
    assert ("STOPSIGNAL", "SIGTERM") in last
    (health,) = [arguments for name, arguments in last if name == "HEALTHCHECK"]
    assert '"python"' in health and "http://127.0.0.1:8080/livez" in health


@pytest.mark.slow  # the first time it is built
def test_docker_itself_finds_nothing_wrong_with_the_image(tmp_path: Path) -> None:
    """By BuildKit's own parser and linter, as `docker build --check` has them; and they would say."""
    program = go_program(ROOT / "tests" / "support" / "dockerfile", "BuildKit's linter")

    def said(text: str) -> str:
        path = tmp_path / "Dockerfile"
        path.write_text(text)
        done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=60, check=False)
        assert bool(done.returncode) is bool(done.stdout + done.stderr)
        return done.stdout + done.stderr

    assert said(DOCKERFILE) == ""
    assert "unknown instruction" in said(DOCKERFILE + "\nEXPOSED 8080\n")
    assert "MaintainerDeprecated" in said(DOCKERFILE + "\nMAINTAINER somebody\n")


def test_the_image_has_no_secret() -> None:
    """Neither as an argument of the build, which its history keeps, nor in its environment."""
    names = {name for name, _ in instructions()}
    assert "ARG" not in names
    for name, arguments in instructions():
        if name in ("ENV", "LABEL", "RUN", "COPY"):
            assert not re.search(r"(?i)key|secret|token|password|meisa_(live|test)_", arguments), arguments


def test_one_folder_of_the_image_is_for_state_and_belongs_to_the_user() -> None:
    """A read-only root needs it; compose and Kubernetes mount their volumes there."""
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user is not None
    assert f"install -d -o {user[1]} -g {user[2]} -m 0750 /var/lib/meisa-bridge" in DOCKERFILE
    assert any(volume.endswith(":/var/lib/meisa-bridge") for volume in SERVICES["bridge"]["volumes"])


# Compose


def test_every_part_of_the_stack_is_watched_contained_and_of_a_version() -> None:
    """Health checks everywhere; no `latest`; for all but Kafka, whose image writes its own configuration, a read-only
    root and no rights."""
    for name, service in RUNNING.items():
        assert "healthcheck" in service, name
        assert re.search(r":(v?\d+\.\d+|local$)", service["image"]), name
        if name != "kafka":
            assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {name for name in used if not name.startswith(".")} == set(COMPOSE["volumes"])


def test_state_outlives_its_containers() -> None:
    """What each part must not lose lies on a named volume."""
    places = {"kafka": "/var/lib/kafka/data", "bridge": "/var/lib/meisa-bridge", "prometheus": "/prometheus"}
    for name, path in {**places, "grafana": "/var/lib/grafana"}.items():
        (volume,) = [each.split(":")[0] for each in SERVICES[name]["volumes"] if each.split(":")[1] == path]
        assert volume in COMPOSE["volumes"]
    assert SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"] == places["kafka"]
    assert SERVICES["bridge"]["environment"]["MEISA_BRIDGE__STATE__URL"] == f"sqlite:///{places['bridge']}/state.db"


def _mounted(service: str, path: str) -> Path:
    """The file of this repository that a container finds at `path`."""
    for volume in SERVICES[service]["volumes"]:
        source, target = volume.split(":")[:2]
        if path.startswith(target + "/"):
            return ROOT / source / path.removeprefix(target + "/")
    raise AssertionError(f"nothing is mounted there: {path}")


def test_prometheus_scrapes_the_bridge_and_reads_its_alerts() -> None:
    """The configuration is where its flag says; the target is the bridge's port in the stack's network."""
    (flag,) = [each for each in SERVICES["prometheus"]["command"] if each.startswith("--config.file=")]
    (config,) = read_yaml(_mounted("prometheus", flag.partition("=")[2]))
    targets = [
        target for job in config["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    ]
    settings = load(ROOT / "config" / "bridge.yaml", {"MEISA_API_KEY": "meisa_test_a"})
    assert settings.admin.address[1] == 8080
    assert targets == ["bridge:8080"] and "bridge" in SERVICES
    (rules,) = config["rule_files"]
    (alerts,) = read_yaml(_mounted("prometheus", rules))
    assert alerts["groups"], "deploy/prometheus/alerts.yaml"


def test_grafana_is_provisioned() -> None:
    """Its data source is the stack's Prometheus, its dashboards are those of deploy/grafana."""
    environment = SERVICES["grafana"]["environment"]
    provisioning = environment["GF_PATHS_PROVISIONING"]
    (sources,) = read_yaml(_mounted("grafana", f"{provisioning}/datasources/prometheus.yaml"))
    (source,) = sources["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    (dashboards,) = read_yaml(_mounted("grafana", f"{provisioning}/dashboards/meisa-bridge.yaml"))
    (provider,) = dashboards["providers"]
    shown = _mounted("grafana", provider["options"]["path"] + "/dashboard.json")
    assert _mounted("grafana", environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]) == shown
    dashboard = json.loads(shown.read_text(encoding="utf-8"))
    asked = {panel["datasource"]["uid"] for panel in dashboard["panels"] if panel.get("datasource")}
    (chosen,) = [each["name"] for each in dashboard["templating"]["list"] if each.get("query") == source["type"]]
    assert asked <= {source["uid"], f"${{{chosen}}}"}, "its default is the one that is provisioned"


# systemd


def unit() -> dict[str, list[str]]:
    """Every setting of the unit with its values, in order."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def verify(text: str, folder: Path) -> str:
    """What `systemd-analyze verify` says of a unit, with a program that is here in place of the installed one."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        require_or_skip("systemd-analyze is needed: apt install systemd")
    path = folder / "meisa-bridge.service"
    path.write_text(text.replace("/opt/meisa-bridge/bin/meisa-bridge", sys.executable))
    done = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, timeout=60)
    # It looks at the units that this one names as well: what it says of those is the machine's own matter.
    return "\n".join(line for line in (done.stdout + done.stderr).splitlines() if "meisa-bridge" in line)


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    """And would: it names a setting that it does not know."""
    text = UNIT.read_text()
    assert verify(text, tmp_path) == ""
    assert "MemorieMax" in verify(text.replace("MemoryMax", "MemorieMax"), tmp_path)


def test_the_unit_lets_the_bridge_drain_reload_and_come_back() -> None:
    """Longer than the drain; SIGHUP reads the rules; a mistake in the command line or a secret is not repeated."""
    settings = unit()
    drain = Delivery.model_validate({}).shutdown_timeout
    assert int(settings["TimeoutStopSec"][0]) >= drain + 10
    assert settings["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert settings["KillSignal"] == ["SIGTERM"] and settings["KillMode"] == ["mixed"]
    assert (settings["Restart"], settings["RestartPreventExitStatus"]) == (["on-failure"], ["2"])
    (start,) = settings["ExecStart"]
    assert start == "/opt/meisa-bridge/bin/meisa-bridge run -c /etc/meisa-bridge/bridge.yaml"


def test_the_unit_is_hardened_and_holds_no_secret() -> None:
    settings = unit()
    for name in (
        *("DynamicUser", "NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome", "ProtectKernelModules"),
        *("ProtectKernelTunables", "ProtectControlGroups", "RestrictNamespaces", "RestrictSUIDSGID", "LockPersonality"),
    ):
        assert settings[name] == ["yes"], name
    assert settings["ProtectSystem"] == ["strict"] and settings["CapabilityBoundingSet"] == [""]
    assert settings["LimitCORE"] == ["0"], "a core dump holds the key"
    assert settings["LoadCredential"] == ["api-key:/etc/meisa-bridge/secrets/api-key"]
    assert not re.search(r"meisa_(live|test)_", UNIT.read_text())


def test_what_the_units_comments_say_is_a_configuration(tmp_path: Path) -> None:
    """The lines for bridge.yaml in the unit's comments load as they stand there."""
    text = UNIT.read_text()
    (instance,) = re.findall(r"^# .*(\{group\.instance\.id: \{env: \w+\}\})$", text, re.MULTILINE)
    (state,) = re.findall(r"^# (state: .*)$", text, re.MULTILINE)
    (key,) = re.findall(r"^#   (api_key: .*)$", text, re.MULTILINE)
    credential = tmp_path / "api-key"
    credential.write_text("meisa_live_a\n")
    assert "/run/credentials/meisa-bridge.service/api-key" in key
    key = key.replace("/run/credentials/meisa-bridge.service/api-key", str(credential))
    config = tmp_path / "bridge.yaml"
    config.write_text(
        f'kafka: {{bootstrap_servers: "k:9092", properties: {instance}}}\n'
        f"topics: {{user-events: {{}}}}\nmeisa: {{{key}}}\nrules: [rules.yaml]\n{state}\n"
    )
    (tmp_path / "rules.yaml").write_text("rules: []\n")
    (variable,) = re.findall(r"env: (\w+)", instance)
    assert any(each.startswith(f"{variable}=%H") for each in unit()["Environment"])
    settings = load(config, {variable: "host-1"})
    assert settings.kafka.properties == {"group.instance.id": "host-1"} and "group.instance.id" not in REFUSED
    assert settings.meisa.api_key.read() == "meisa_live_a"
    assert settings.state.url == f"sqlite:////var/lib/{unit()['StateDirectory'][0]}/state.db"
