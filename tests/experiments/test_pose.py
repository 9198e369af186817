"""The pose model's figures, on few pictures."""

import pytest

from onmodel.experiments.pose import pose


def test_figures_are_of_unseen_pictures() -> None:
    pytest.importorskip("ultralytics")
    found = pose(8)
    assert found["pictures"] == 8 and found["characters"] >= 8
    assert found["found"] > 0.7 and found["seen_points_right"] > 0.7
    assert 0 < found["median_distance_of_seen_points"] < 0.1
