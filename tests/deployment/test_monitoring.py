"""The alerts do what they say, and rules and dashboard name metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .kubernetes import CLUSTER, ROOT, one
from .metrics import named_metrics

MONITORING = CLUSTER / "monitoring"
PROMTOOL = shutil.which("promtool")
OWN = re.compile(r'"(onmodel_\w+)"')


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool here (apt-get install prometheus)")
def test_the_alerts_fire_for_what_they_are_made_for(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    (tmp_path / "rules.plain.yaml").write_text(yaml.safe_dump(one("PrometheusRule", "monitoring")["spec"]))
    shutil.copy(MONITORING / "rules.test.yaml", tmp_path)
    for command in (["check", "rules", "--lint-fatal", "rules.plain.yaml"], ["test", "rules", "rules.test.yaml"]):
        done = subprocess.run(
            [PROMTOOL, *command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    rules = [rule for group in one("PrometheusRule", "monitoring")["spec"]["groups"] for rule in group["rules"]]
    tests = yaml.safe_load((MONITORING / "rules.test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules if "alert" in rule}


def test_operators_are_told_what_each_alert_is() -> None:
    told = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rules = [rule for group in one("PrometheusRule", "monitoring")["spec"]["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in rules if "alert" in rule and rule["alert"] not in told} == set()


def dashboard() -> dict[str, Any]:
    return json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    board = dashboard()
    assert board["uid"] and board["title"] and board["schemaVersion"] >= 39
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references)
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            # Each name in the legend is one that the query leaves.
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), target["expr"]
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__rate_interval"}
    assert used == variables


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool here (apt-get install prometheus)")
def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$__rate_interval", "5m").replace("$application", ".*")}
        for number, query in enumerate(queries)
    ]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", "queries.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_our_own_metrics_that_are_named_are_in_the_code() -> None:
    files = ("common/metrics.py", "serving/admission.py")
    made = {name for file in files for name in OWN.findall((ROOT / "services" / "onmodel" / file).read_text())}
    named = {name.removeprefix("ray_") for name in named_metrics() if name.startswith("ray_onmodel")}
    bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
    assert bare == made, "a metric that nobody looks at, or one that there is not"
