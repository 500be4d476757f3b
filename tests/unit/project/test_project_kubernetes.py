"""deploy/kubernetes: valid by Kubernetes' own schemas, and one whole with the bridge's settings, image and promises."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge.cli import main
from bridge.config import Settings, load
from tests.support.manifests import complaints, mounted, read_yaml, rendered, the
from tests.support.programs import go_program

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
COMPONENTS = ("keda", "podmonitor")
SETTINGS = FOLDER / "settings" / "bridge.yaml"
KUSTOMIZE = ROOT / "tests" / "support" / "kustomize"
KUSTOMIZE_AT = "sigs.k8s.io/kustomize/kustomize/v5"
ENVIRON = {
    "POD_NAME": "meisa-bridge-0",
    "MEISA_BRIDGE__MEISA__API_KEY": "meisa_live_x",
    "MEISA_BRIDGE__ADMIN__TOKEN": "t",
}
"""Where there is no Secret: the files are named in bridge.yaml, and are not here."""

KEDA_KAFKA = {
    "bootstrapServers",
    "consumerGroup",
    "topic",
    "partitionLimitation",
    "lagThreshold",
    "activationLagThreshold",
    "offsetResetPolicy",
    "allowIdleConsumers",
    "excludePersistentLag",
    "scaleToZeroOnInvalidOffset",
    "limitToPartitionsWithLag",
    "ensureEvenDistributionOfPartitions",
    "fullMetadata",
    "version",
    "tls",
    "unsafeSsl",
    "sasl",
    "saslTokenProvider",
    "awsRegion",
}
"""What KEDA 2.21's kafka scaler reads of `metadata` (pkg/scalers/kafka_scaler.go); its schema takes any name."""

BASE = rendered(FOLDER)
ALL = rendered(FOLDER, *COMPONENTS)
POD: dict[str, Any] = the(BASE, "StatefulSet")["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load(SETTINGS, ENVIRON)


# Valid


@pytest.mark.parametrize("manifest", ALL, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_each_manifest_is_valid(manifest: dict[str, Any]) -> None:
    """By the strict schemas of Kubernetes, of KEDA and of the Prometheus operator: an unknown field is an error."""
    assert complaints(manifest) == []


def test_the_schemas_notice_mistakes() -> None:
    """A misspelt field anywhere, a wrong type, a kind that is not there."""

    def broken(kind: str, *route: Any, value: Any) -> list[str]:
        manifest = copy.deepcopy(the(ALL, kind))
        below = manifest
        for key in route[:-1]:
            below = below[key]
        below[route[-1]] = value
        return complaints(manifest)

    assert broken("StatefulSet", "spec", "template", "spec", "containers", 0, "readynessProbe", value={})
    assert broken("StatefulSet", "spec", "replicas", value="two")
    assert broken("PodDisruptionBudget", "spec", "maxUnavailible", value=1)
    assert broken("ScaledObject", "spec", "triggers", 0, "metdata", value={})
    assert broken("PodMonitor", "spec", "podMetricsEndpoints", 0, "intervall", value="1s")
    assert broken("Service", "kind", value="Servise")


@pytest.mark.parametrize("components", [(), COMPONENTS])
def test_kustomize_puts_together_what_is_tested_here(components: tuple[str, ...], tmp_path: Path) -> None:
    """The real one says the same; what else is tested here does not need it."""
    kubectl = shutil.which("kubectl")
    kustomize = shutil.which("kustomize") or (
        None if kubectl else str(go_program(KUSTOMIZE, "kustomize", KUSTOMIZE_AT))
    )
    command = [kustomize, "build"] if kustomize else [kubectl, "kustomize"]
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    file = folder / "kustomization.yaml"
    file.write_text(file.read_text() + f"\ncomponents: [{', '.join(components)}]\n")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out.yaml"
    out.write_text(done.stdout)

    def sort(manifests: list[Any]) -> list[Any]:
        return sorted(manifests, key=lambda each: (each["kind"], each["metadata"]["name"]))

    assert sort(read_yaml(out)) == sort(rendered(FOLDER, *components))


# The configuration in the pod


def test_the_configuration_passes_check_as_the_pod_sees_it(tmp_path: Path) -> None:
    """Through the mounted ConfigMaps, strictly; and its rules pass their tests."""
    folders = list(mounted(BASE, tmp_path))
    config = tmp_path / CONTAINER["args"][-1].lstrip("/")
    assert CONTAINER["args"][:-1] == ["run", "-c"] and config.parent in folders
    done = CliRunner().invoke(main, ["check", "--offline", "--strict", "-c", str(config)], env=ENVIRON)
    assert done.exit_code == 0, done.output
    tested = CliRunner().invoke(main, ["test", "-c", str(config)], env=ENVIRON)
    assert tested.exit_code == 0, tested.output


def test_every_file_of_rules_is_in_the_config_map() -> None:
    """One that is only in the folder would be tested and checked, and never reach a pod."""
    data = the(BASE, "ConfigMap", "meisa-bridge-rules")["data"]
    assert sorted(data) == sorted(path.name for path in (FOLDER / "rules").iterdir())


def test_what_the_configuration_refers_to_is_there(settings: Settings) -> None:
    """Variables are set, secrets are files below the Secret's mount, the state lies on the pod's volume."""
    (document,) = read_yaml(SETTINGS)
    references = _references(document)
    assert {each["env"] for each in references if "env" in each} == {variable["name"] for variable in CONTAINER["env"]}
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    secrets = mounts["secrets"]["mountPath"]
    assert [each["file"] for each in references if "file" in each] == [f"{secrets}/api-key", f"{secrets}/admin-token"]
    assert document["kafka"]["properties"]["group.instance.id"] == {"env": "POD_NAME"}
    assert CONTAINER["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert settings.state.url == f"sqlite:///{mounts['state']['mountPath']}/state.db"
    assert not mounts["state"].get("readOnly")


def _references(value: Any) -> list[dict[str, str]]:
    if isinstance(value, dict):
        if set(value) <= {"env", "file"} and value:
            return [value]
        return [found for each in value.values() for found in _references(each)]
    return [found for each in value for found in _references(each)] if isinstance(value, list) else []


def test_mounts_see_changes_and_have_their_volumes() -> None:
    """A ConfigMap's and a Secret's change reaches whole folders only; names without a hash keep the pods running."""
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    claimed = {claim["metadata"]["name"] for claim in the(BASE, "StatefulSet")["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == volumes.keys() | claimed
    assert not any("subPath" in mount or "subPathExpr" in mount for mount in CONTAINER["volumeMounts"])
    for volume in volumes.values():
        if "configMap" in volume:
            the(BASE, "ConfigMap", volume["configMap"]["name"])
    writable = {mount["name"] for mount in CONTAINER["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"state", "tmp"}


# One whole


def test_ports_and_probes_are_those_of_the_admin_server(settings: Settings) -> None:
    """The port is admin.listen's, open beyond the pod, so with a token; probes and scraping go without one."""
    host, port = settings.admin.address
    assert (host, settings.admin.token is not None) == ("0.0.0.0", True)
    assert CONTAINER["ports"] == [{"name": "http", "containerPort": port}]
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert probes == {
        "startup": {"path": "/livez", "port": "http"},
        "liveness": {"path": "/livez", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    annotations = the(BASE, "StatefulSet")["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port),
        "prometheus.io/path": "/metrics",
    }
    (endpoint,) = the(ALL, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    (served,) = the(BASE, "Service")["spec"]["ports"]
    assert (served["port"], served["targetPort"], the(BASE, "Service")["spec"]["clusterIP"]) == (port, "http", "None")
    (rule,) = the(BASE, "NetworkPolicy")["spec"]["ingress"]
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]


def test_the_grace_period_is_longer_than_the_drain(settings: Settings) -> None:
    """By more than closing everything takes after it; else the kubelet would kill what still commits."""
    assert POD["terminationGracePeriodSeconds"] >= settings.delivery.shutdown_timeout + 10


def test_selectors_find_the_pods() -> None:
    labels = the(BASE, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert the(BASE, "StatefulSet")["spec"]["selector"]["matchLabels"] == labels
    assert the(BASE, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert the(BASE, "Service")["spec"]["selector"] == labels
    assert the(BASE, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert the(ALL, "PodMonitor")["spec"]["selector"]["matchLabels"] == labels
    assert the(BASE, "StatefulSet")["spec"]["serviceName"] == the(BASE, "Service")["metadata"]["name"]
    assert POD["serviceAccountName"] == the(BASE, "ServiceAccount")["metadata"]["name"]


def test_the_pod_has_no_right_that_it_does_not_need() -> None:
    """Not root, nothing to write to but its volumes, no capability, no token of the API; the user is the image's."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):", dockerfile, re.MULTILINE)
    security = POD["securityContext"]
    assert security["runAsNonRoot"] is True and security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {security["runAsUser"], security["runAsGroup"], security["fsGroup"]} == {int(user)}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    assert CONTAINER["resources"]["requests"].keys() >= {"cpu", "memory"} and CONTAINER["resources"]["limits"]["memory"]
    assert re.fullmatch(r"meisa-bridge:\d+\.\d+\.\d+", CONTAINER["image"]), "a version, not latest"


def test_there_are_never_more_pods_than_partitions(settings: Settings) -> None:
    """What bridge.yaml says of its topic's partitions is what scaling stops at."""
    (partitions,) = map(int, re.findall(r"# (\d+) partitions", SETTINGS.read_text()))
    scaled = the(ALL, "ScaledObject")["spec"]
    assert the(BASE, "StatefulSet")["spec"]["replicas"] <= scaled["maxReplicaCount"] == partitions
    assert scaled["minReplicaCount"] >= 1 and "idleReplicaCount" not in scaled
    assert scaled["fallback"]["replicas"] <= partitions


def test_scaling_looks_at_the_groups_own_lag(settings: Settings) -> None:
    """Each topic has its trigger, with the group and brokers of bridge.yaml and names that the scaler reads."""
    scaled = the(ALL, "ScaledObject")["spec"]
    assert (scaled["scaleTargetRef"]["kind"], scaled["scaleTargetRef"]["name"]) == ("StatefulSet", "meisa-bridge")
    assert {trigger["type"] for trigger in scaled["triggers"]} == {"kafka"}
    facts = [trigger["metadata"] for trigger in scaled["triggers"]]
    assert [fact["topic"] for fact in facts] == list(settings.topics)
    for fact in facts:
        assert set(fact) <= KEDA_KAFKA
        assert fact["limitToPartitionsWithLag"] == "true" and "allowIdleConsumers" not in fact
        assert fact["consumerGroup"] == settings.kafka.group_id
        assert fact["bootstrapServers"] == settings.kafka.bootstrap_servers
        assert fact["offsetResetPolicy"] == settings.topics[fact["topic"]].start


def test_what_scales_is_not_set_back_by_an_apply() -> None:
    """With KEDA the StatefulSet says no number of its own, and without it does."""
    assert "replicas" not in the(ALL, "StatefulSet")["spec"]
    assert "replicas" in the(BASE, "StatefulSet")["spec"]


def test_no_secret_is_in_the_folder() -> None:
    """Neither a manifest of one nor anything that looks like a key."""
    assert not [each for each in ALL if each["kind"] == "Secret"]
    for path in FOLDER.rglob("*.yaml"):
        assert not re.search(r"meisa_(live|test)_\w", path.read_text()), path
