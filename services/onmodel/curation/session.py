"""One curation in progress: the pictures, what was decided, and the answers that the page asks for."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from onmodel.core.config import Config
from onmodel.core.errors import UserError
from onmodel.core.vocabulary import Attribute, ShotType
from onmodel.curation.background import Background
from onmodel.curation.cache import Cache
from onmodel.curation.catalogue import Catalogue, Entry
from onmodel.curation.export import Exported, attributes_of, export, group_of
from onmodel.curation.store import UNDECIDED, Action, Kind, State, Store, describe
from onmodel.curation.targets import Target
from onmodel.dataset.recommended import LABELS

NAME_AT_MOST = 80


class PageOptions(Config):
    """How the page begins."""

    show_metadata: bool = False
    filter_mode: Literal["all", "balanced"] = "all"
    """"balanced" puts pictures of the categories that are still missing first."""


class ActionRequest(Config):
    """What a page asks to be done."""

    client: str = Field(min_length=1, max_length=64)
    """Names the page."""
    token: str = Field(min_length=1, max_length=64)
    """Names the action, so that asking again after a lost answer does nothing twice."""
    since: int = Field(ge=0)
    """The latest revision that the page has seen."""
    kind: Kind
    pictures: tuple[str, ...] = Field(min_length=1)
    duplicates: tuple[str, ...] = ()
    """Of a keep: near-duplicates of the pictures, which are rejected in the same action."""
    group: str | None = None
    """Of a move."""
    shot_type: ShotType | None = None
    """Of a label."""
    add: tuple[Attribute, ...] = ()
    remove: tuple[Attribute, ...] = ()
    reset: bool = False
    """Of a label: back to what was detected."""


class TurnRequest(Config):
    """Undo or redo."""

    client: str = Field(min_length=1, max_length=64)
    token: str = Field(min_length=1, max_length=64)
    since: int = Field(ge=0)
    target: int = Field(ge=1)
    """The action that is meant."""


@dataclass
class Session:
    """Everything behind one page. Safe from several threads."""

    catalogue: Catalogue
    store: Store
    cache: Cache
    background: Background
    target: Target
    output_dir: Path
    options: PageOptions

    def __post_init__(self) -> None:
        self._ids = {entry.hash: entry.id for entry in self.catalogue.entries}
        self._exporting = threading.Lock()

    def everything(self) -> dict[str, Any]:
        """All pictures and the present state, for a page that has just been opened."""
        revision, states = self.store.snapshot()
        return {
            "title": self.catalogue.source.resolve().name,
            "source": str(self.catalogue.source),
            "output": str(self.output_dir),
            "groups": self.catalogue.groups,
            "nested": self.catalogue.nested,
            "notes": self.catalogue.notes,
            "options": self.options.model_dump(),
            "target": self.target.model_dump(),
            "shot_types": [[shot.value, LABELS[shot.value]] for shot in ShotType],
            "attributes": [[attribute.value, LABELS[attribute.value]] for attribute in Attribute],
            "pictures": [_described(entry) for entry in self.catalogue.entries],
            "revision": revision,
            "states": self._states(states),
            **self._rest(),
        }

    def changes(self, since: int) -> dict[str, Any]:
        """What was done after revision `since`, and how far the background work is."""
        found = self.store.since(since)
        return {
            "revision": found[-1][0].revision if found else since,
            "actions": [{**_told(action), "states": self._states(states)} for action, states in found],
            **self._rest(),
        }

    def _rest(self) -> dict[str, Any]:
        undo, redo = self.store.next_undo(), self.store.next_redo()
        progress = self.background.progress
        return {
            "undo": None if undo is None else _told(undo),
            "redo": None if redo is None else _told(redo),
            "background": {
                "total": progress.total,
                "looked": progress.looked,
                "embedded": progress.embedded,
                "stacks": progress.stacks,
                "note": progress.note,
                "embeds": progress.embeds,
            },
        }

    def _states(self, states: Mapping[str, State]) -> dict[str, list[Any]]:
        """Id -> [decision, group, shot type, attributes], of the pictures that are still there."""
        return {
            self._ids[content]: [state.decision, state.group, state.shot_type, state.attributes]
            for content, state in states.items()
            if content in self._ids
        }

    def act(self, request: ActionRequest) -> dict[str, Any]:
        """Do what is asked, and answer with all changes since the page last looked.

        Raises:
            UserError: unknown pictures, or something that the kind of action needs is missing or wrong.
        """
        entries = [self.catalogue.entry(each) for each in dict.fromkeys(request.pictures)]
        _, states = self.store.snapshot()
        changes: dict[str, dict[str, Any]] = {}
        value = ""
        if request.kind == "move":
            value = self._group(request.group)
            changes = {e.hash: {"group": None if value == e.group else value} for e in entries}
        elif request.kind == "label":
            value = _label_text(request)
            changes = {e.hash: _labelled(e, states.get(e.hash, UNDECIDED), request) for e in entries}
        else:
            decision = None if request.kind == "clear" else request.kind
            changes = {entry.hash: {"decision": decision} for entry in entries}
            if request.kind == "keep" and request.duplicates:
                extra = [self.catalogue.entry(each) for each in dict.fromkeys(request.duplicates)]
                rejected = {e.hash: {"decision": "reject"} for e in extra if e.hash not in changes}
                value = f"rejected {len(rejected)} near-duplicate{'' if len(rejected) == 1 else 's'}"
                changes |= rejected
        text = describe(request.kind, len(entries), value)
        self.store.act(request.kind, changes, text=text, client=request.client, token=request.token)
        return self.changes(request.since)

    def _group(self, name: str | None) -> str:
        """A cluster's name that can be a folder's. Raises UserError."""
        cleaned = (name or "").strip()
        if not cleaned:
            raise UserError("a cluster needs a name; type one")
        if len(cleaned) > NAME_AT_MOST:
            raise UserError(f"a cluster's name may have {NAME_AT_MOST} characters; shorten it")
        if cleaned.startswith(".") or any(c in '/\\:*?"<>|' or not c.isprintable() for c in cleaned):
            raise UserError(
                f"`{cleaned}` cannot be a folder's name; leave out a leading dot and any of / \\ : * ? \" < > |"
            )
        return cleaned

    def undo(self, request: TurnRequest) -> dict[str, Any]:
        """Turn an action back. Raises ConflictError when it is not the latest any more."""
        self.store.undo(request.target, client=request.client, token=request.token)
        return self.changes(request.since)

    def redo(self, request: TurnRequest) -> dict[str, Any]:
        """Do an undone action again. Raises ConflictError when it is not the one undone last."""
        self.store.redo(request.target, client=request.client, token=request.token)
        return self.changes(request.since)

    def similar(self, picture_id: str) -> dict[str, Any]:
        """The pictures most like one. Raises NotFoundError, or ImageError as `Background.similar`."""
        found = self.background.similar(self.catalogue.entry(picture_id))
        return {"by": found.by, "note": found.note, "pictures": [[each, round(s, 4)] for each, s in found.ids]}

    def write(self, *, keep_undecided: bool = False) -> Exported:
        """Export the kept pictures; one at a time. Raises as `export`."""
        with self._exporting:
            _, states = self.store.snapshot()
            return export(self.catalogue, states, self.output_dir, keep_undecided=keep_undecided)

    def counts(self) -> dict[str, Any]:
        """Kept, rejected and undecided pictures, and the kept ones a cluster."""
        _, states = self.store.snapshot()
        now = [(entry, states.get(entry.hash, UNDECIDED)) for entry in self.catalogue.entries]
        kept = [group_of(entry, state) for entry, state in now if state.decision == "keep"]
        return {
            "pictures": len(now),
            "kept": len(kept),
            "rejected": sum(state.decision == "reject" for _, state in now),
            "undecided": sum(state.decision is None for _, state in now),
            "groups": {name: kept.count(name) for name in sorted(set(kept))},
        }


def _told(action: Action) -> dict[str, Any]:
    return {"revision": action.revision, "client": action.client, "kind": action.kind, "text": action.text}


def _described(entry: Entry) -> dict[str, Any]:
    row = entry.row
    return {
        "id": entry.id,
        "file": entry.file,
        "group": entry.group,
        "width": row.width,
        "height": row.height,
        "shot": row.shot_type.value,
        "attributes": row.attributes,
        "reason": row.reason,
        "caption": row.caption,
        "main": row.main,
        "boxes": [[round(v) for v in each.box] for each in row.instances],
        "face": None if row.main_instance is None or row.main_instance.face is None else row.main_instance.face,
        "pose": entry.pose,
        "similarity": entry.similarity,
        "labelled": entry.label is not None,
    }


def _labelled(entry: Entry, state: State, request: ActionRequest) -> dict[str, Any]:
    if request.reset:
        return {"shot_type": None, "attributes": None}
    fields: dict[str, Any] = {}
    if request.shot_type is not None:
        fields["shot_type"] = request.shot_type
    if request.add or request.remove:
        attributes = (attributes_of(entry, state) | set(request.add)) - set(request.remove)
        fields["attributes"] = tuple(sorted(attributes))
    if not fields:
        raise UserError("a label needs a shot type or an attribute; choose one")
    return fields


def _label_text(request: ActionRequest) -> str:
    if request.reset:
        return "as detected"
    parts: list[str] = [] if request.shot_type is None else [LABELS[request.shot_type.value]]
    parts += _names("", request.add) + _names("not ", request.remove)
    return ", ".join(parts)


def _names(prefix: str, attributes: Sequence[Attribute]) -> list[str]:
    return [prefix + LABELS[attribute.value] for attribute in attributes]
