"""Which words of a command line go along with a job, which stay, and which mean nothing elsewhere."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.errors import UserError
from onmodel.jobs.request import FILE, JobRequest
from onmodel.jobs.shipping import Shipment, placed, places


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a training config, a variant of it, and a dataset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "configs").mkdir()
    write(tmp_path / "trial.toml", train_data_dir="/mnt/set", output_dir="/mnt/runs")
    return tmp_path


def write(file: Path, **keys: str) -> None:
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))


def ship(*arguments: str, workspace: bool = False) -> Shipment:
    return Shipment(arguments, [], workspace=workspace)


def test_a_config_goes_along_and_places_stay(here: Path) -> None:
    shipment = ship("train", "trial.toml", "--epochs", "3")
    assert shipment.arguments == ("train", f"{FILE}00_trial.toml", "--epochs", "3")
    assert shipment.files == {"00_trial.toml": (here / "trial.toml").read_text()}
    assert places(shipment.arguments, shipment.files) == {"/mnt/set": False, "/mnt/runs": True}


def test_a_config_that_a_config_names_goes_along_too(here: Path) -> None:
    write(here / "configs" / "ablation.toml", base="../trial.toml", name="three", output_dir="s3://b/runs")
    shipment = ship("ablate", "configs/ablation.toml")
    assert set(shipment.files) == {"00_ablation.toml", "01_trial.toml"}
    assert f'base = "{FILE}01_trial.toml"' in shipment.files["00_ablation.toml"]


def test_two_files_of_one_name_stay_two(here: Path) -> None:
    (here / "a").mkdir()
    (here / "a" / "trial.toml").write_text("")
    shipment = ship("evaluate", "/mnt/t", "--test-suite=trial.toml", "--detector-config", "a/trial.toml")
    assert shipment.arguments[2:] == (f"--test-suite={FILE}00_trial.toml", "--detector-config", f"{FILE}01_trial.toml")


def test_what_is_written_does_not_go_along(here: Path) -> None:
    (here / "old.json").write_text("{}")
    shipment = ship("analyze", "/mnt/set", "--output-json", str(here / "old.json"))
    assert not shipment.files
    assert places(shipment.arguments, {})[str(here / "old.json")] is True


def test_a_name_before_an_equals_sign_is_no_part_of_the_path(here: Path) -> None:
    found = places(ship("cluster", "/mnt/frames", "--reference", "zibo=/mnt/ref").arguments, {})
    assert "/mnt/ref" in found


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("analyze", "set"), "set: a relative path means nothing"),
        (("cluster", "/mnt/frames", "--reference", "zibo=set"), "set: a relative path"),
        (("train", "relative.toml"), "`train_data_dir` = 'set' is a relative path"),
        (("train", "nowhere.toml"), "`output_dir` to an absolute path"),
        (("train", "yaml.yaml"), "write it in plain quotes"),
        (("train", "broken.toml"), "cannot be parsed"),
    ],
)
def test_what_would_be_lost_is_refused_here(here: Path, arguments: tuple[str, ...], says: str) -> None:
    write(here / "relative.toml", train_data_dir="set", output_dir="/mnt/runs")
    write(here / "nowhere.toml", train_data_dir="/mnt/set")
    (here / "yaml.yaml").write_text("dataset_config: trial.toml\n")
    (here / "broken.toml").write_text("= 3")
    with pytest.raises(UserError, match=says):
        ship(*arguments)


def test_with_a_workspace_paths_are_relative_to_it(here: Path) -> None:
    write(here / "relative.toml", train_data_dir="set")
    assert ship("train", "relative.toml", workspace=True).files
    assert ship("analyze", "set", workspace=True).arguments == ("analyze", "set")


def test_beside_a_config_is_nowhere_on_the_cluster(here: Path) -> None:
    (here / "configs" / "held_back").mkdir()
    write(here / "configs" / "project.toml", references="held_back")
    with pytest.raises(UserError, match=r"make it absolute or an s3:// URI$"):
        ship("improve", "configs/project.toml", workspace=True)


@pytest.mark.parametrize("word", ["file:///etc/passwd", "HTTP://host/a", "/mnt/../etc", "~/.ssh", "zibo=/mnt/../etc"])
def test_places_of_other_kinds_are_refused(word: str) -> None:
    with pytest.raises(UserError):
        places(("analyze", word), {})


def test_a_result_asks_for_no_places_but_is_looked_into_for_roots() -> None:
    files = {"analysis.json": json.dumps({"schema_version": 1, "dataset": "/home/me/set"})}
    assert places(("augment", "/mnt/set"), files, results=False) == {"/mnt/set": False}
    assert "/home/me/set" in places(("augment", "/mnt/set"), files)


names = st.text("abc/._-", min_size=1, max_size=8).map(lambda text: f"s3://bucket/{text.strip('/')}")


@given(st.lists(names, unique=True, min_size=1, max_size=5))
def test_every_place_is_replaced_by_its_own(uris: list[str]) -> None:
    at = {uri: f"<{number}>" for number, uri in enumerate(uris)}
    text = json.dumps(uris)
    assert json.loads(placed(text, at)) == [at[uri] for uri in uris]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"job_id": "../x"}, "job_id"),
        ({"arguments": ()}, "arguments"),
        ({"arguments": ("serve", "up")}, "cannot be run as a job"),
        ({"files": {"../x": ""}}, "not a plain file name"),
        ({"workspace": "relative"}, "absolute path"),
        ({"scratch": "s3://b/x"}, "absolute path"),
    ],
)
def test_a_request_is_checked(keys: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        JobRequest.model_validate({"job_id": "a", "arguments": ("train",), **keys})


def test_a_request_is_known_by_what_it_does_and_not_by_how_it_was_typed() -> None:
    request = JobRequest(job_id="a", arguments=("train", "x"), command="onmodel train x")
    again = request.model_copy(update={"command": "onmodel  train x", "roots": ("/mnt",)})
    assert request.fingerprint("code") == again.fingerprint("code")
    assert request.fingerprint("code") != request.fingerprint("other code")
    assert request.fingerprint("code") != request.model_copy(update={"workspace": "/mnt"}).fingerprint("code")
