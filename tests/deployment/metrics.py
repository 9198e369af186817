"""The metrics that rules and dashboard name."""

import json
import re

from .kubernetes import CLUSTER, one

_NAME = re.compile(r"\b((?:ray|envoy)_\w+)\b(?!\s*=)")


def named_metrics() -> set[str]:
    """Full names as Prometheus has them, with `_bucket`, `_sum` and `_count`."""
    rules = [rule["expr"] for group in one("PrometheusRule", "monitoring")["spec"]["groups"] for rule in group["rules"]]
    panels = json.loads((CLUSTER / "monitoring" / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    without_labels = [re.sub(r"\{[^}]*\}|by \([^)]*\)", "", text) for text in (*rules, *queries)]
    return {name for text in without_labels for name in _NAME.findall(text)}
