"""What was made goes through tar files of a limited size, and comes out as it was."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onmodel.core.errors import OnModelError, UserError
from onmodel.experiments import packing
from onmodel.experiments.make import Job, Made, jobs_of, make
from onmodel.experiments.plan import Layout, Settings, claim, trials_of

SETTINGS = Settings(characters=("zibo",), seeds=(1, 2), strategies=("baseline", "c"), prompts=1)


def lay_out(work: Path, checkpoint_bytes: int = 40_000) -> Layout:
    """Files as of made trials, without training any."""
    layout = Layout(work)
    claim(work, SETTINGS)
    base = layout.pictures("zibo") / "base-0000"
    base.mkdir(parents=True)
    (base / "img_000.png").write_bytes(b"base" * 500)
    (layout.pictures("zibo") / "made.json").write_text("{}")
    for number, trial in enumerate(trials_of(SETTINGS)):
        folder = layout.trial(trial)
        folder.mkdir(parents=True)
        name = f"{trial.name}-000001"
        (folder / f"{name}.safetensors").write_bytes(bytes([number]) * checkpoint_bytes)
        (folder / "losses.json").write_text(json.dumps([0.1] * 40))
        pictures = layout.pictures("zibo") / name
        pictures.mkdir()
        for k in range(3):
            (pictures / f"img_{k:03d}.png").write_bytes(bytes([number, k]) * 3000)
        made = Made(trial=trial.name, checkpoint=f"{name}.safetensors", checkpoint_hash="0", base_hash="0", loss=0.1,
                    steps=40, training_s=1.0, drawing_s=1.0, device="cpu", versions={})  # fmt: skip
        (folder / "made.json").write_text(made.model_dump_json())
    return layout


def contents(folder: Path) -> dict[str, bytes]:
    files = [f for part in ("trials", "pictures") for f in (folder / part).rglob("*") if f.is_file()]
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


def test_several_trips_bring_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = lay_out(tmp_path / "work")
    monkeypatch.setattr(packing, "MOST_BYTES", 120_000)
    monkeypatch.setattr(packing, "MOST_TOTAL", 150_000)
    trips = 0
    while any(line.startswith("left out") for line in packing.pack(SETTINGS, layout, tmp_path / f"trip_{trips}")):
        trips += 1
        assert trips < 10
    for number in range(trips + 1):
        files = list((tmp_path / f"trip_{number}").glob("*.tar"))
        assert len(files) <= packing.MOST_FILES
        assert all(file.stat().st_size <= 120_000 for file in files)
        packing.unpack(tmp_path / f"trip_{number}", tmp_path / "back")
    assert trips >= 1
    assert contents(tmp_path / "back") == contents(layout.work)
    assert packing.pack(SETTINGS, layout, tmp_path / "nothing") == []


def test_pictures_and_records_go_before_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = lay_out(tmp_path / "work", checkpoint_bytes=300_000)
    monkeypatch.setattr(packing, "MOST_TOTAL", 400_000)
    packing.pack(SETTINGS, layout, tmp_path / "out")
    packing.unpack(tmp_path / "out", tmp_path / "back")
    came = contents(tmp_path / "back")
    everything = contents(layout.work)
    assert {name for name in everything if not name.endswith(".safetensors")} <= came.keys()
    claim(tmp_path / "back", SETTINGS) if not (tmp_path / "back").is_dir() else None
    assert all(job.made for job in jobs_of(SETTINGS, Layout(tmp_path / "back")))


def test_half_made_trials_stay(tmp_path: Path) -> None:
    layout = lay_out(tmp_path / "work")
    first = trials_of(SETTINGS)[0]
    (layout.trial(first) / "made.json").unlink()
    packing.pack(SETTINGS, layout, tmp_path / "out")
    packing.unpack(tmp_path / "out", tmp_path / "back")
    assert not any(first.name in name for name in contents(tmp_path / "back"))
    with pytest.raises(UserError, match="holds something"):
        packing.pack(SETTINGS, layout, tmp_path / "out")


@given(st.lists(st.integers(0, 200_000), max_size=30))
def test_no_piece_is_lost_or_packed_twice(sizes: list[int]) -> None:
    tars, left = packing._fill(  # pyright: ignore[reportPrivateUsage]
        [(str(n), size) for n, size in enumerate(sizes)], most_bytes=150_000, most_total=600_000
    )
    packed = [name for names in tars for name in names]
    assert sorted([*packed, *left], key=int) == [str(n) for n in range(len(sizes))]
    assert len(tars) <= packing.MOST_FILES
    assert all(sum(sizes[int(name)] for name in names) <= 150_000 for names in tars)
    assert sum(sizes[int(name)] for name in packed) <= 600_000


def test_no_job_begins_that_could_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of our own: jobs of 10 s, 35 s to go."""
    layout = Layout(tmp_path)
    (tmp_path / "sets").mkdir()
    for trial in trials_of(SETTINGS):
        (layout.sets(trial.unit) / trial.dataset).mkdir(parents=True, exist_ok=True)
    now = [100.0]
    monkeypatch.setattr("onmodel.experiments.make.time.monotonic", lambda: now[0])
    done: list[str] = []

    def run(jobs: list[Job], go_on: Callable[[], bool]) -> Iterator[tuple[Job, float | OnModelError]]:
        for job in jobs:
            if not go_on():
                return
            now[0] += 10
            done.append(job.name)
            yield job, 10.0

    assert make(layout, jobs_of(SETTINGS, layout), run, 35.0) == 5
    assert len(done) == 3
