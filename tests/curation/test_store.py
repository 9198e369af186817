"""The log: what is written stays, undo is exact, and a second process sees it all."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onmodel.core.errors import UserError
from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.curation.store import FILE, UNDECIDED, ConflictError, Kind, State, Store, describe

PICTURES = ["a" * 64, "b" * 64, "c" * 64]
_count = iter(range(10**9))


def act(store: Store, kind: Kind, changes: dict[str, dict[str, Any]], client: str = "one") -> int:
    return store.act(kind, changes, text=describe(kind, len(changes)), client=client, token=f"t{next(_count)}")


def undo(store: Store, target: int, client: str = "one") -> int:
    return store.undo(target, client=client, token=f"t{next(_count)}")


def redo(store: Store, target: int) -> int:
    return store.redo(target, client="one", token=f"t{next(_count)}")


changes = st.dictionaries(
    st.sampled_from(PICTURES),
    st.fixed_dictionaries(
        {},
        optional={
            "decision": st.sampled_from(["keep", "reject", None]),
            "group": st.sampled_from(["rabbit", None]),
            "shot_type": st.none() | st.sampled_from(ShotType),
            "attributes": st.none() | st.just(()) | st.just((Attribute.OCCLUSION,)),
        },
    ),
    min_size=1,
)


# Each example writes and syncs a file.
@settings(max_examples=40, deadline=None)
@given(st.lists(st.just("undo") | st.just("redo") | changes, max_size=14))
def test_undo_and_redo_are_exact_and_survive(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str | dict[str, dict[str, Any]]]
) -> None:
    path = tmp_path_factory.mktemp("store") / FILE
    past: list[dict[str, State]] = [{}]
    future: list[dict[str, State]] = []
    with Store(path) as store:
        for step in steps:
            if isinstance(step, dict):
                act(store, "label", step)
                now = dict(past[-1])
                for picture, fields in step.items():
                    before = now.get(picture, UNDECIDED)
                    now[picture] = State(**{name: fields.get(name, getattr(before, name)) for name in State.__slots__})
                past.append(now)
                future.clear()
            elif step == "undo" and (latest := store.next_undo()) is not None:
                undo(store, latest.revision)
                future.append(past.pop())
            elif step == "redo" and (latest := store.next_redo()) is not None:
                redo(store, latest.revision)
                past.append(future.pop())
            assert (store.next_undo() is None) == (len(past) == 1)
            assert (store.next_redo() is None) == (not future)
        revision, _ = store.snapshot()
    with Store(path) as again:
        number, states = again.snapshot()
        assert number == revision
        assert {p: s for p, s in states.items() if s != UNDECIDED} == {
            p: s for p, s in past[-1].items() if s != UNDECIDED
        }
        assert (again.next_undo() is None) == (len(past) == 1)


def test_the_log_cannot_be_changed(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as store:
        act(store, "keep", {PICTURES[0]: {"decision": "keep"}})
    database = sqlite3.connect(tmp_path / FILE)
    for statement in ("delete from actions", "update changes set after = '{}'", "delete from changes"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    database.close()


def test_an_action_asked_for_twice_is_done_once(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as store:
        first = store.act("keep", {PICTURES[0]: {"decision": "keep"}}, text="kept", client="one", token="same")
        act(store, "reject", {PICTURES[0]: {"decision": "reject"}})
        again = store.act("keep", {PICTURES[0]: {"decision": "keep"}}, text="kept", client="one", token="same")
        assert again == first
        assert store.snapshot()[1][PICTURES[0]].decision == "reject"


def test_two_processes_see_each_other_and_undo_only_what_was_meant(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as one, Store(tmp_path / FILE) as two:
        mine = act(one, "keep", {PICTURES[0]: {"decision": "keep"}})
        assert two.snapshot()[1][PICTURES[0]].decision == "keep"
        theirs = act(two, "reject", {PICTURES[0]: {"decision": "reject"}}, client="two")
        with pytest.raises(ConflictError, match="Another page has acted meanwhile; the latest is now: rejected"):
            undo(one, mine)
        assert one.snapshot()[1][PICTURES[0]].decision == "reject"
        undo(one, theirs)
        undo(two, mine)
        assert one.snapshot()[1][PICTURES[0]] == UNDECIDED
        assert [action.kind for action, _ in one.since(0)] == ["keep", "reject", "undo", "undo"]
        with pytest.raises(ConflictError, match="nothing is left to undo"):
            undo(one, mine)


@pytest.mark.parametrize("damage", ["text", "truncated", "version"])
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / FILE
    with Store(path) as store:
        for _ in range(40):
            act(store, "keep", {picture: {"decision": "keep"} for picture in PICTURES})
    if damage == "text":
        path.write_text("not a database, but long enough to be taken for one " * 50)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-4096])
    else:
        database = sqlite3.connect(path)
        database.execute("update meta set version = 99")
        database.commit()
        database.close()
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"curation\.sqlite: the decisions in it cannot be read .* move it away"):
        Store(path)
    assert path.read_bytes() == before


def test_words() -> None:
    assert describe("move", 3, "rabbit") == "moved 3 pictures to rabbit"
    assert describe("keep", 1) == "kept 1 picture"
    assert describe("label", 2, "far / wide") == "labelled 2 pictures: far / wide"
