"""Where everything in a project came from: one graph of datasets, configs, trials and evaluations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from onmodel import __version__
from onmodel.core.config import Config
from onmodel.core.files import write_text
from onmodel.diagnosis.journal import Decision, Journal, Result
from onmodel.diagnosis.project import Project

LINEAGE_FILE = "lineage.json"
Kind = Literal["dataset", "film", "references", "config", "trial", "evaluation"]


class Node(Config):
    """One thing on disk."""

    id: str
    kind: Kind
    label: str
    path: str
    round: int
    """0: given."""
    note: str = ""


class Edge(Config):
    """One thing made from another."""

    source: str
    target: str
    by: str
    """The verb, and the rules that asked for it."""


class Lineage(Config):
    """The content of `lineage.json`."""

    schema_version: int = 1
    onmodel_version: str = __version__
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def ancestors(self, node: str) -> set[str]:
        """Ids of everything that a node came from."""
        found: set[str] = set()
        waiting = [node]
        while waiting:
            current = waiting.pop()
            sources = {edge.source for edge in self.edges if edge.target == current} - found
            found |= sources
            waiting += sources
        return found


def lineage_of(project: Project, journal: Journal) -> Lineage:
    """The graph of what the journal holds."""
    nodes = [
        Node(id="dataset", kind="dataset", label=project.dataset.name, path=str(project.dataset), round=0),
        Node(id="config", kind="config", label=project.training.name, path=str(project.training), round=0),
        Node(id="references", kind="references", label=project.references.name, path=str(project.references), round=0),
    ]
    edges: list[Edge] = []
    if project.film is not None:
        names = ", ".join(path.name for path in project.film.files)
        nodes.append(Node(id="film", kind="film", label=names, path=str(project.film.files[0]), round=0))
    results = journal.results()
    for result in results:
        decision = journal.decision(result.number)
        assert decision is not None
        origin = _origin(result.number, results)
        source = _dataset_nodes(result, decision, journal, origin, nodes, edges)
        _trial_nodes(result, decision, origin, source, nodes, edges)
    return Lineage(nodes=tuple(nodes), edges=tuple(edges))


def _origin(number: int, results: Sequence[Result]) -> int:
    """The round that one starts from: the best before it, 0 for what was given."""
    return results[number - 2].best if number > 1 else 0


def _dataset_nodes(
    result: Result, decision: Decision, journal: Journal, origin: int, nodes: list[Node], edges: list[Edge]
) -> str:
    """Add what the steps made; returns the id of the dataset that was trained on."""
    source = next((n.id for n in nodes if n.kind == "dataset" and n.path == decision.dataset), "dataset")
    for step in decision.steps:
        folder = journal.round(result.number) / step / "dataset"
        if not folder.is_dir():
            continue
        rules = [c.rule for c in decision.choices if c.step == step and c.action == "applied"]
        note = next((text for text in result.made if text.startswith(f"{step}: ")), "")
        node = Node(
            id=f"dataset_{result.number}_{step}", kind="dataset", label=f"{step} of round {result.number}",
            path=str(folder), round=result.number, note=note,
        )  # fmt: skip
        nodes.append(node)
        edges.append(Edge(source=source, target=node.id, by=f"{step} for {', '.join(rules)}"))
        if step == "extract":
            edges.append(Edge(source="film", target=node.id, by="extract, cluster, caption, merge"))
        source = node.id
    return source


def _trial_nodes(
    result: Result, decision: Decision, origin: int, dataset: str, nodes: list[Node], edges: list[Edge]
) -> None:
    number = result.number
    parameters = [c.rule for c in decision.choices if c.action == "applied" and c.step in ("parameters", "mix")]
    config = Node(
        id=f"config_{number}", kind="config", label=f"config of round {number}", path=result.config, round=number
    )
    trial = Node(
        id=f"trial_{number}", kind="trial", label=Path(result.trial).name, path=result.checkpoint, round=number,
        note=f"SHA-256 {result.checkpoint_hash}",
    )  # fmt: skip
    evaluation = Node(
        id=f"evaluation_{number}", kind="evaluation", label=f"evaluation of round {number}",
        path=result.evaluation, round=number, note=result.sentence,
    )  # fmt: skip
    nodes += [config, trial, evaluation]
    before = f"config_{origin}" if origin else "config"
    edges += [
        Edge(source=before, target=config.id, by=", ".join(parameters) or "unchanged"),
        Edge(source=config.id, target=trial.id, by="train"),
        Edge(source=dataset, target=trial.id, by="train"),
        Edge(source=trial.id, target=evaluation.id, by="evaluate"),
        Edge(source="references", target=evaluation.id, by="evaluate"),
    ]


def write_lineage(lineage: Lineage, folder: Path) -> None:
    """Write `lineage.json`, whole or not at all."""
    write_text(folder / LINEAGE_FILE, lineage.model_dump_json(indent=1) + "\n")


COLUMN, ROW, BOX_WIDTH, BOX_HEIGHT = 190, 64, 164, 40
LANES: tuple[Kind, ...] = ("film", "dataset", "config", "trial", "evaluation", "references")
"""From top to bottom."""


class Placed(Config):
    """A node with its place in the drawing, in pixels."""

    node: Node
    x: int
    y: int


class Line(Config):
    """An edge as a curve."""

    path: str
    """SVG path data."""
    by: str


class Drawing(Config):
    """A lineage laid out: a column for what was given and one or more for each round, a lane for each kind."""

    width: int
    height: int
    boxes: tuple[Placed, ...]
    lines: tuple[Line, ...]


def draw(lineage: Lineage) -> Drawing:
    """Lay a lineage out from left to right, so that nothing stands left of what it came from."""
    ranks: dict[str, int] = {}
    for node in lineage.nodes:
        # Nodes are listed after what they came from.
        ranks[node.id] = max((ranks[e.source] + 1 for e in lineage.edges if e.target == node.id), default=0)
    kinds = [kind for kind in LANES if any(node.kind == kind for node in lineage.nodes)]
    boxes = tuple(
        Placed(node=node, x=ranks[node.id] * COLUMN + 4, y=kinds.index(node.kind) * ROW + 4) for node in lineage.nodes
    )
    by_id = {box.node.id: box for box in boxes}
    lines = tuple(Line(path=_curve(by_id[edge.source], by_id[edge.target]), by=edge.by) for edge in lineage.edges)
    width = max(box.x for box in boxes) + BOX_WIDTH + 4
    return Drawing(width=width, height=len(kinds) * ROW, boxes=boxes, lines=lines)


def _curve(source: Placed, target: Placed) -> str:
    x0, y0 = source.x + BOX_WIDTH, source.y + BOX_HEIGHT // 2
    x1, y1 = target.x, target.y + BOX_HEIGHT // 2
    middle = (x0 + x1) // 2
    return f"M{x0} {y0} C{middle} {y0} {middle} {y1} {x1} {y1}"
