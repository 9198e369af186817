"""What lies in a store comes to the disk and goes back, changed files alone, in fsspec's memory file system."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from onmodel.core.errors import ForbiddenError, NotFoundError, UserError
from onmodel.jobs import entry, reach
from onmodel.jobs.request import FILE, JobRequest
from onmodel.jobs.storage import Storage


class Store(MemoryFileSystem):
    """Remembers what was sent."""

    cachable = False
    sent: list[str] = []  # noqa: RUF012

    def put_file(self, lpath: str, rpath: str, **more: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().put_file(lpath, rpath, **more)
        self.sent.append(rpath)


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    made.store.clear()
    made.sent.clear()
    for name in ("set/a.png", "set/a.txt", "set/deep/b.png", "settled/c.png", "one.json"):
        made.pipe(f"/bucket/{name}", name.encode())
    yield made
    made.store.clear()


def storage(store: Store, folder: Path, **uris: bool) -> Storage:
    return Storage(
        folder, {f"s3://bucket/{name.replace('__', '/')}": written for name, written in uris.items()}, lambda _: store
    )


def test_a_prefix_and_a_file_come_whole_and_nothing_else_does(store: Store, tmp_path: Path) -> None:
    stored = Storage(tmp_path, {"s3://bucket/set": False, "s3://bucket/one.json": False}, lambda _: store)
    assert stored.bring() == 4
    files = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file())
    assert files == ["bucket/one.json", "bucket/set/a.png", "bucket/set/a.txt", "bucket/set/deep/b.png"]
    assert stored.send() == 0


def test_only_what_changed_is_sent_and_what_was_removed_is_removed(store: Store, tmp_path: Path) -> None:
    stored = storage(store, tmp_path, set=False, out=True)
    stored.bring()
    out = tmp_path / "bucket" / "out"
    out.mkdir()
    (out / "state.pt").write_bytes(b"1")
    (out / ".state.pt.xyz.part").write_bytes(b"half")
    (tmp_path / "bucket" / "set" / "a.txt").unlink()
    assert stored.send() == 2
    assert store.sent == ["bucket/out/state.pt"]
    assert store.find("/bucket/set") == ["/bucket/set/a.png", "/bucket/set/deep/b.png"]
    assert stored.send() == 0
    (out / "state.pt").write_bytes(b"22")
    assert stored.send() == 1
    assert store.cat("/bucket/out/state.pt") == b"22"


def test_another_job_finds_what_was_sent(store: Store, tmp_path: Path) -> None:
    first = storage(store, tmp_path / "1", out=True)
    first.bring()
    (tmp_path / "1" / "bucket" / "out").mkdir()
    (tmp_path / "1" / "bucket" / "out" / "state.pt").write_bytes(b"1")
    first.send()
    second = storage(store, tmp_path / "2", out=True)
    assert second.bring() == 1
    assert (tmp_path / "2" / "bucket" / "out" / "state.pt").read_bytes() == b"1"


def test_a_missing_input_is_an_error_and_a_missing_output_is_not(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="s3://bucket/nothing: nothing is there"):
        storage(store, tmp_path, nothing=False).bring()
    assert storage(store, tmp_path, nothing=True).bring() == 0


def test_a_name_that_leads_outside_is_refused(store: Store, tmp_path: Path) -> None:
    store.pipe("/bucket/set/../../../x", b"")
    with pytest.raises(UserError, match="leads out of the folder"):
        storage(store, tmp_path, set=False).bring()
    assert not (tmp_path.parent / "x").exists()


def test_places_within_places_are_brought_once(store: Store, tmp_path: Path) -> None:
    stored = storage(store, tmp_path, set=False, set__deep=False)
    assert stored.bring() == 3
    assert stored.at["s3://bucket/set/deep"] == str(tmp_path / "bucket" / "set" / "deep")


def test_a_refusal_of_the_store_is_a_sentence(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store, "find", refuse)
    with pytest.raises(UserError, match=r"s3://bucket/set: the store refuses \(Access Denied\)"):
        storage(store, tmp_path, set=False).bring()


def test_a_file_that_the_store_does_not_take_is_an_error_and_one_removed_meanwhile_is_not(tmp_path: Path) -> None:
    class Refusing(Store):
        def put_file(self, lpath: str, rpath: str, **more: Any) -> None:
            Path(lpath).with_name("gone").unlink(missing_ok=True)
            if lpath.endswith("gone"):
                Path(lpath).read_bytes()
            raise FileNotFoundError(f"no such bucket: {rpath}")

    out = tmp_path / "bucket" / "out"
    out.mkdir(parents=True)
    (out / "gone").write_bytes(b"1")
    stored = storage(Refusing(), tmp_path, out=True)
    assert stored.send() == 1
    (out / "state.pt").write_bytes(b"1")
    with pytest.raises(UserError, match=r"s3://bucket/out: cannot be read or written \(no such bucket"):
        stored.send()


def test_a_job_brings_runs_and_sends(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the verb: it copies what a config names, and ends with a code of its own."""
    program = (
        "import json,pathlib,sys; config=json.loads(pathlib.Path(sys.argv[2]).read_text());"
        "out=pathlib.Path(config['output_dir']); out.mkdir(parents=True);"
        "(out/'copy').write_bytes((pathlib.Path(config['data_dir'])/'a.png').read_bytes()); sys.exit(7)"
    )
    monkeypatch.setattr(entry, "VERB", ("-c", program))
    monkeypatch.setenv("ONMODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    request = JobRequest(
        job_id="job",
        arguments=("train", f"{FILE}c.json"),
        files={"c.json": json.dumps({"data_dir": "s3://bucket/set", "output_dir": "s3://bucket/runs/x"})},
    )
    assert entry.run(request, lambda _: store) == 7
    assert store.cat("/bucket/runs/x/copy") == b"set/a.png"
    assert [left.suffix for left in (tmp_path / "cache" / "jobs").iterdir()] == [".lock"]


def test_two_jobs_on_the_same_places_are_kept_apart(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONMODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    given = {"arguments": ("analyze", "s3://bucket/set")}
    monkeypatch.setattr(entry, "VERB", ("-c", "import sys; sys.exit(0)"))

    def again(lpath: str, rpath: str, **more: Any) -> None:
        with pytest.raises(UserError, match="s3://bucket/set: another job here reads and writes the same places"):
            entry.run(JobRequest.model_validate({**given, "job_id": "second"}), lambda _: store)
        MemoryFileSystem.get_file(store, lpath, rpath, **more)

    monkeypatch.setattr(store, "get_file", again)
    assert entry.run(JobRequest.model_validate({**given, "job_id": "first"}), lambda _: store) == 0


def test_a_job_names_nothing_outside_its_roots(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    given = {"job_id": "job", "roots": (str(inside), "s3://bucket/zibo")}
    allowed = JobRequest.model_validate(
        {**given, "arguments": ("analyze", str(inside)), "workspace": "s3://bucket/zibo/w"}
    )
    entry.check_roots(allowed)
    for changes in (
        {"arguments": ("analyze", str(outside))},
        {"arguments": ("analyze", f"--html={outside}/x")},
        {"arguments": ("analyze", "s3://bucket/other")},
        {"arguments": ("analyze", "link/a"), "workspace": str(inside)},
        {"arguments": ("analyze", str(inside)), "workspace": str(outside)},
        {"arguments": ("analyze", str(inside)), "scratch": str(outside)},
        {"arguments": ("train", f"{FILE}c.toml"), "files": {"c.toml": f'x = [["{outside}"]]'}},
        {"arguments": ("train", f"{FILE}c.json"), "files": {"c.json": f'{{"schema_version": 1, "x": "{outside}"}}'}},
    ):
        with pytest.raises(ForbiddenError):
            entry.check_roots(JobRequest.model_validate({**given, **changes}))


def test_what_a_node_does_not_see_is_told_before_the_work(tmp_path: Path) -> None:
    reach.check_here({str(tmp_path): False, str(tmp_path / "new" / "runs"): True})
    with pytest.raises(NotFoundError, match="the cluster does not see it"):
        reach.check_here({str(tmp_path / "missing"): False})
    with pytest.raises(UserError, match="cannot be made"):
        reach.check_here({"/dev/null/runs": True})
