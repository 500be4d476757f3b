"""Alert rules and dashboard name what there is: the catalogue's metrics and labels, and the runbook's sections."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bridge.observe.catalogue import CATALOGUE
from tests.support.needs import require_or_skip
from tests.support.promql import SAMPLES, BadQuery, check

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in YAML(typ="safe").load(PROMETHEUS / "alerts.yaml")["groups"]
    for rule in group["rules"]
}
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def sections(page: str) -> dict[str, str]:
    """The text of each section by its anchor."""
    heads = list(re.finditer(r"^## (.+)$", page, re.MULTILINE))
    ends = [head.start() for head in heads[1:]] + [len(page)]
    return {
        re.sub(r"[^\w -]", "", head[1].lower()).replace(" ", "-"): page[head.end() : end].strip()
        for head, end in zip(heads, ends, strict=True)
    }


# The reader itself: it must be able to refuse


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("meisa_bridge_redy == 0", "no metric"),
        ("up == 0", "no metric"),
        ('meisa_bridge_ready{topic="x"}', "no label topic"),
        ('meisa_bridge_waiting_for{reason="kwota"} > 0', "never has"),
        ('meisa_bridge_waiting_for{reason=~"quota|kwota"} > 0', "never has"),
        ("rate(meisa_bridge_partition_lag[5m])", "which is a gauge"),
        ("deriv(meisa_bridge_commits_total[5m])", "which is a counter"),
        ("rate(meisa_bridge_commits_total)", "takes a range"),
        ("meisa_bridge_commits_total[5m]", "through a function"),
        ("sum by (topic) (meisa_bridge_commits_total)", "no such label"),
        ("histogram_quantile(0.95, sum by (lane) (rate(meisa_bridge_event_delay_seconds_bucket[5m])))", "by le"),
        ("histogram_quantile(0.95, rate(meisa_bridge_event_delay_seconds_sum[5m]))", "buckets"),
        ("meisa_bridge_event_delay_seconds > 1", "no metric"),
        ("meisa_bridge_partition_lag and meisa_bridge_ready", "nothing would match"),
        ("meisa_bridge_partition_lag and on (topic) meisa_bridge_ready", "no such label"),
        ("meisa_bridge_ready and 1", "takes vectors"),
        ("sum(meisa_bridge_ready", "should stand"),
        ("meisa_bridge_ready == ", "should stand"),
        ("meisa_bridge_ready 1", "left over"),
        ("meisa_bridge_ready & 1", "cannot be read"),
        ("increase(meisa_bridge_commits_total[many])", "no duration"),
    ],
)
def test_a_wrong_query_is_refused(query: str, says: str) -> None:
    with pytest.raises(BadQuery, match=says):
        check(query)


def test_the_labels_of_a_good_query_are_known() -> None:
    assert check("sum by (topic) (rate(meisa_bridge_events_finished_total[5m])) > 1").labels == {"topic"}
    assert check("absent(meisa_bridge_ready)").kind == "vector"
    assert {"meisa_bridge_call_duration_seconds_bucket", "meisa_bridge_call_duration_seconds_count"} <= set(SAMPLES)


# Alerts


@pytest.mark.parametrize("name", ALERTS)
def test_an_alerts_expression_is_of_the_catalogue(name: str) -> None:
    """And what its texts name is a label that the result has."""
    alert = ALERTS[name]
    found = check(alert["expr"])
    assert found.kind == "vector"
    texts = " ".join(alert["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= found.labels


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_complete(name: str) -> None:
    alert = ALERTS[name]
    assert set(alert) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"MeisaBridge[A-Z]\w+", name)
    assert re.fullmatch(r"[1-9]\d*[mh]", alert["for"])
    assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert alert["annotations"]["description"].endswith(".")


def test_every_alert_has_its_section_in_the_runbook_and_the_other_way_round() -> None:
    found = sections(RUNBOOK)
    linked = {name: ALERTS[name]["annotations"]["runbook"].removeprefix("docs/runbook.md#") for name in ALERTS}
    assert list(linked.values()) == list(found), "in the same order too"
    assert all(len(text) > 100 for text in found.values())
    rows = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \|", RUNBOOK, re.MULTILINE)
    assert rows == [(name, linked[name], ALERTS[name]["labels"]["severity"]) for name in ALERTS]
    assert set(re.findall(r"\]\(#([\w-]+)\)", RUNBOOK)) <= set(found)


def test_the_runbook_names_metrics_that_exist() -> None:
    assert set(re.findall(r"meisa_bridge_\w+", RUNBOOK)) <= {definition.name for definition in CATALOGUE}


# Dashboard


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_a_panels_queries_are_of_the_catalogue(panel: dict[str, Any]) -> None:
    """Each has a query, and each query's legend names labels that it gives."""
    assert panel["targets"]
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "6h")
        found = check(query)
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= found.labels, target["expr"]
        assert 'job=~"$job", instance=~"$instance"' in query, "it follows what was chosen above"


def test_the_dashboard_shows_what_the_one_on_call_needs() -> None:
    """Flow, quota of both windows, delay of each lane, lag and window, dead letters, reasons to wait."""
    text = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    shown = set(re.findall(r"meisa_bridge_\w+", text))
    unshown = {name for each in CATALOGUE for name in [each.name] if not any(one.startswith(name) for one in shown)}
    assert unshown == {
        "meisa_bridge_suppression_list_addresses",
        "meisa_bridge_start_time_seconds",
        "meisa_bridge_info",
        "meisa_bridge_lost_records_total",
        "meisa_bridge_rules_reloads_total",
        "meisa_bridge_trace_spans_total",
    }
    for lane in ("transactional", "sync", "bulk"):
        assert f'lane="{lane}"' in text
    for window in ("minute", "hour"):
        assert f'window="{window}"' in text


def test_panels_have_their_own_ids_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_what_is_chosen_above_comes_from_metrics_that_exist() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert set(variables) == {"datasource", "job", "instance"}
    for name in ("job", "instance"):
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variables[name]["query"]["query"])
        assert found is not None and found[2] in check(found[1]).labels
    sources = [panel["datasource"]["uid"] for panel in PANELS]
    assert set(sources) == {"${datasource}"}, "it works with whatever Prometheus is called there"


# The scenarios that promtool runs


def test_each_alert_fires_in_a_scenario_and_scenarios_name_what_there_is() -> None:
    """Each alert has at least one, and there is one in which nothing fires."""
    scenarios = YAML(typ="safe").load(PROMETHEUS / "alerts_test.yaml")
    assert scenarios["rule_files"] == ["alerts.yaml"]
    fired: set[str] = set()
    for scenario in scenarios["tests"]:
        for series in scenario["input_series"]:
            found = check(series["series"])
            (name,) = found.names
            labels = set(re.findall(r"(\w+)=", series["series"]))
            assert labels == found.labels, f"{name}: a scrape has all its labels"
        for expected in scenario["promql_expr_test"]:
            fired |= {name for each in expected["exp_samples"] for name in re.findall(r'"(\w+)"', each["labels"])}
    assert fired == set(ALERTS)
    assert any(not expected["exp_samples"] for each in scenarios["tests"] for expected in each["promql_expr_test"])


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        require_or_skip("promtool is needed (Debian: apt-get download prometheus, then dpkg -x; see .ci/run)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_prometheus_itself_plays_the_scenarios() -> None:
    """Every alert fires when it should and not before."""
    done = promtool("test", "rules", str(PROMETHEUS / "alerts_test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_itself_takes_the_rules_and_the_configuration(tmp_path: Path) -> None:
    """As compose mounts them, in one folder; and promtool would notice a wrong expression."""
    text = (PROMETHEUS / "prometheus.yml").read_text()
    (rules,) = YAML(typ="safe").load(text)["rule_files"]
    config, alerts = tmp_path / "prometheus.yml", tmp_path / Path(rules).name
    config.write_text(text.replace(rules, str(alerts)))
    alerts.write_text((PROMETHEUS / "alerts.yaml").read_text())
    done = promtool("check", "config", str(config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout + done.stderr
    alerts.write_text(alerts.read_text().replace("expr: ", "expr: sum( ", 1))
    assert promtool("check", "config", str(config)).returncode != 0
