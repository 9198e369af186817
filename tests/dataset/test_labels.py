"""Labels of a person: kept, read, and counted over what the detector says."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.errors import UserError
from onmodel.core.files import content_hash
from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.dataset.analysis import analyze
from onmodel.dataset.labels import FILE, REASON, Label, read_labels, write_labels

from .conftest import Trial


def test_what_a_person_says_counts_over_the_detector(trial: Trial) -> None:
    before = {row.file: row for row in analyze(trial.dataset, trial.services()).rows}
    shot, both, untouched = sorted(trial.truth)[:3]
    changed = ShotType.FAR if before[shot].shot_type is not ShotType.FAR else ShotType.MEDIUM
    write_labels(
        trial.path,
        [
            Label(file=shot, hash=before[shot].hash or "", shot_type=changed),
            Label(file="elsewhere.png", hash=before[both].hash or "", attributes=(Attribute.OCCLUSION,)),
        ],
    )
    services = trial.services()
    after = {row.file: row for row in analyze(trial.dataset, services).rows}
    assert services.detection.asked == 0
    assert (after[shot].shot_type, after[shot].reason) == (changed, REASON)
    assert after[shot].attributes == before[shot].attributes
    assert after[both].attributes == ("occlusion",)
    assert after[both].shot_type is before[both].shot_type
    assert after[both].reason == before[both].reason
    assert after[untouched] == before[untouched]


def test_labels_may_deny_all_attributes(trial: Trial) -> None:
    rows = analyze(trial.dataset, trial.services()).rows
    busy = next(row for row in rows if row.attributes)
    write_labels(trial.path, [Label(file=busy.file, hash=busy.hash or "", attributes=())])
    after = {row.file: row for row in analyze(trial.dataset, trial.services()).rows}
    assert after[busy.file].attributes == ()


@given(
    st.lists(
        st.builds(
            Label,
            file=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
            hash=st.binary(min_size=1, max_size=4).map(content_hash),
            shot_type=st.none() | st.sampled_from(ShotType),
            attributes=st.none() | st.lists(st.sampled_from(Attribute), unique=True).map(tuple),
        ),
        unique_by=lambda label: label.hash,
        max_size=6,
    )
)
def test_labels_survive_their_file(tmp_path_factory: pytest.TempPathFactory, labels: list[Label]) -> None:
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder, labels)
    assert read_labels(folder) == {label.hash: label for label in labels}


def test_no_file_no_labels(tmp_path: Path) -> None:
    assert read_labels(tmp_path) == {}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 must be an object"),
        (json.dumps({"file": "a.png", "hash": "0" * 64, "shot": "far"}), "line 2: unknown key `shot`; did you mean"),
        (json.dumps({"file": "a.png", "hash": "short"}), "line 2: `hash`"),
        (json.dumps({"file": "a.png", "hash": "0" * 64, "shot_type": "wide"}), "line 2: `shot_type`"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, what: str) -> None:
    (tmp_path / FILE).write_text("\n" + line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=what):
        read_labels(tmp_path)
