"""Decisions on disk: an append-only log of actions in SQLite, from which the present state follows.

An action changes any number of pictures at once and is written before it is answered. Undo and redo are actions too:
they name the one that they turn back, and turn it back only when it is the one that the caller meant. Nothing is ever
changed or removed in the log. Several pages and several processes may use one file.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from onmodel.core.errors import ResourceError, UserError
from onmodel.core.vocabulary import Attribute, ShotType

FILE = "curation.sqlite"
VERSION = 1
Decided = Literal["keep", "reject"]
Kind = Literal["keep", "reject", "clear", "move", "label"]

_TABLES = """
create table if not exists meta (version integer not null);
create table if not exists actions (
    revision integer primary key autoincrement,
    time text not null,
    client text not null,
    token text not null unique,
    kind text not null,
    text text not null,
    target integer references actions (revision)
);
create table if not exists changes (
    revision integer not null references actions (revision),
    picture text not null,
    before text not null,
    after text not null,
    primary key (revision, picture)
) without rowid;
"""

_SCHEMA = _TABLES + "".join(
    f"""create trigger if not exists {table}_{word} before {word} on {table}
    begin select raise(abort, 'the log is append-only'); end;
    """
    for table in ("actions", "changes")
    for word in ("update", "delete")
)


class ConflictError(UserError):
    """What should be undone or redone is no longer the latest: another page has acted since."""


@dataclass(frozen=True, slots=True)
class State:
    """What a person said about one picture; None everywhere = nothing yet."""

    decision: Decided | None = None
    group: str | None = None
    """Where it was moved; None = where it lies."""
    shot_type: ShotType | None = None
    attributes: tuple[Attribute, ...] | None = None
    """All that are true, ordered by name; None = not corrected."""

    def dump(self) -> str:
        """The state as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> "State":
        """The state that `dump` wrote."""
        value = json.loads(text)
        shot, attributes = value["shot_type"], value["attributes"]
        return cls(
            value["decision"],
            value["group"],
            None if shot is None else ShotType(shot),
            None if attributes is None else tuple(Attribute(name) for name in attributes),
        )


UNDECIDED = State()
_After = Callable[[Mapping[str, State]], dict[str, State]]
"""Present states to those that an action leaves."""


@dataclass(frozen=True, slots=True)
class Action:
    """One line of the log."""

    revision: int
    client: str
    """Names the page that acted."""
    kind: str
    """A Kind, "undo" or "redo"."""
    text: str
    """For a person: "kept 3 pictures"."""
    target: int | None
    """The action that an undo or redo is about."""


class Store:
    """The log and the state that follows from it. Safe from several threads; close it or use it as a context."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            UserError: it is damaged, of another version or no such file, or cannot be written.
        """
        self.path = path
        self._lock = threading.RLock()
        self._revision = 0
        self._states: dict[str, State] = {}
        self._actions: dict[int, Action] = {}
        self._done: list[int] = []
        self._undone: list[int] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=30.0, check_same_thread=False, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another --output-dir") from None
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: the decisions in it cannot be read ({error}); put a copy of it in its place, "
                "or move it away to begin anew"
            ) from None

    def _prepare(self) -> None:
        # A killed process loses nothing, nor does a power cut: every commit reaches the disk before it is answered.
        self._database.execute("pragma journal_mode=wal")
        self._database.execute("pragma synchronous=full")
        (tables,) = self._database.execute("select count(*) from sqlite_master where name = 'meta'").fetchone()
        if not tables:
            # Another process may do the same at this moment.
            first = f"insert into meta select {VERSION} where not exists (select 1 from meta)"
            self._database.executescript(f"begin immediate; {_SCHEMA} {first}; commit")
        (checked,) = self._database.execute("pragma quick_check(1)").fetchone()
        if checked != "ok":
            raise ValueError(checked)
        (version,) = self._database.execute("select version from meta").fetchone()
        if version != VERSION:
            raise ValueError(f"it is of version {version}, this is OnModel's version {VERSION}")
        self._catch_up()

    def _catch_up(self) -> None:
        """Bring what is held in memory to the end of the log: another process may have written."""
        rows = self._database.execute(
            "select revision, client, kind, text, target from actions where revision > ? order by revision",
            (self._revision,),
        ).fetchall()
        for row in rows:
            action = Action(*row)
            changes = self._database.execute(
                "select picture, after from changes where revision = ?", (action.revision,)
            )
            self._states.update((picture, State.parse(after)) for picture, after in changes)
            self._actions[action.revision] = action
            self._place(action)
            self._revision = action.revision

    def _place(self, action: Action) -> None:
        """Keep the two stacks of what can be undone and redone."""
        if action.kind == "undo" and action.target is not None:
            self._done.remove(action.target)
            self._undone.append(action.target)
        elif action.kind == "redo" and action.target is not None:
            self._undone.remove(action.target)
            self._done.append(action.target)
        else:
            self._done.append(action.revision)
            self._undone.clear()

    @property
    def revision(self) -> int:
        """Number of the latest action."""
        with self._lock:
            self._catch_up()
            return self._revision

    def snapshot(self) -> tuple[int, dict[str, State]]:
        """The latest revision and the state of every picture that was ever acted on, by content hash."""
        with self._lock:
            self._catch_up()
            return self._revision, dict(self._states)

    def next_undo(self) -> Action | None:
        """The action that undo turns back."""
        with self._lock:
            return self._actions[self._done[-1]] if self._done else None

    def next_redo(self) -> Action | None:
        """The action that redo does again."""
        with self._lock:
            return self._actions[self._undone[-1]] if self._undone else None

    def since(self, revision: int) -> list[tuple[Action, dict[str, State]]]:
        """Every action after `revision`, with the states that it left."""
        with self._lock:
            self._catch_up()
            found: list[tuple[Action, dict[str, State]]] = []
            for number in range(revision + 1, self._revision + 1):
                if number not in self._actions:
                    continue
                rows = self._database.execute("select picture, after from changes where revision = ?", (number,))
                found.append((self._actions[number], {picture: State.parse(after) for picture, after in rows}))
            return found

    def act(self, kind: Kind, changes: Mapping[str, Mapping[str, Any]], *, text: str, client: str, token: str) -> int:
        """Write one action and give its revision.

        Args:
            kind: what a person did.
            changes: content hash -> the fields of `State` that change.
            text: the action for a person, see `describe`.
            client: names the page.
            token: names this action; a second request with it changes nothing.

        Raises:
            ResourceError: the disk is full.
            UserError: the file cannot be written.
        """

        def after(states: Mapping[str, State]) -> dict[str, State]:
            return {picture: replace(states.get(picture, UNDECIDED), **fields) for picture, fields in changes.items()}

        return self._write(after, kind=kind, text=text, client=client, token=token, target=None)

    def undo(self, target: int, *, client: str, token: str) -> int:
        """Turn back action `target`, and give the new revision. Raises ConflictError unless it is the latest."""
        return self._turn("undo", target, "before", client, token)

    def redo(self, target: int, *, client: str, token: str) -> int:
        """Do action `target` again. Raises ConflictError unless it is the one undone last."""
        return self._turn("redo", target, "after", client, token)

    def _turn(
        self, kind: Literal["undo", "redo"], target: int, side: Literal["before", "after"], client: str, token: str
    ) -> int:
        def states(_: Mapping[str, State]) -> dict[str, State]:
            stack = self._done if kind == "undo" else self._undone
            if not stack or stack[-1] != target:
                latest = self._actions[stack[-1]].text if stack else None
                instead = f"the latest is now: {latest}" if latest else f"nothing is left to {kind}"
                raise ConflictError(f"Another page has acted meanwhile; {instead}.")
            rows = self._database.execute(f"select picture, {side} from changes where revision = ?", (target,))
            return {picture: State.parse(state) for picture, state in rows}

        with self._lock:
            self._catch_up()
            turned = self._actions[target].text if target in self._actions else ""
            text = f"{'undid' if kind == 'undo' else 'redid'}: {turned}"
            return self._write(states, kind=kind, text=text, client=client, token=token, target=target)

    def _write(self, after: _After, *, kind: str, text: str, client: str, token: str, target: int | None) -> int:
        with self._lock:
            try:
                self._database.execute("begin immediate")
                self._catch_up()
                known = self._database.execute("select revision from actions where token = ?", (token,)).fetchone()
                if known is not None:
                    self._database.execute("rollback")
                    return int(known[0])
                states = after(self._states)
                cursor = self._database.execute(
                    "insert into actions (time, client, token, kind, text, target) values (?, ?, ?, ?, ?, ?)",
                    (datetime.now(UTC).isoformat(timespec="milliseconds"), client, token, kind, text, target),
                )
                self._database.executemany(
                    "insert into changes values (?, ?, ?, ?)",
                    [
                        (cursor.lastrowid, picture, self._states.get(picture, UNDECIDED).dump(), state.dump())
                        for picture, state in states.items()
                    ],
                )
                self._database.execute("commit")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    self._database.execute("rollback")
                if isinstance(error, sqlite3.Error):
                    raise self._write_error(error) from None
                raise
            self._catch_up()
            return self._revision

    def _write_error(self, error: sqlite3.Error) -> ResourceError | UserError:
        if "full" in str(error):
            return ResourceError(f"{self.path}: the disk is full; free some space, nothing decided before is lost")
        return UserError(f"{self.path}: cannot be written ({error}); check the disk and the file's permissions")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_VERBS = {"keep": "kept", "reject": "rejected", "clear": "cleared", "move": "moved", "label": "labelled"}


def describe(kind: Kind, count: int, value: str = "") -> str:
    """An action for a person: "moved 3 pictures to rabbit". `value` is where to, which label, or what else."""
    pictures = f"{count} picture" + ("" if count == 1 else "s")
    joined = {"move": f" to {value}", "label": f": {value}"}.get(kind, f", {value}" if value else "")
    return f"{_VERBS[kind]} {pictures}{joined}"
