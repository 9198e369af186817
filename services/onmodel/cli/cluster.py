"""`onmodel cluster`: group the characters of pictures by who they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onmodel.cli.measuring import (
    DatasetDetectorOption,
    DetectorConfigOption,
    ScorerOption,
    ScorerWeightsOption,
    ServicesOption,
    detector_for,
)

if TYPE_CHECKING:
    from onmodel.film.cluster import ClusterConfig
    from onmodel.film.cluster_output import ClusterResult


def command(
    dataset: Annotated[Path, typer.Argument(help="Folder of pictures, or an sd-scripts dataset TOML.")],
    output_dir: Annotated[Path, typer.Option(help="Folder for a folder a cluster; replaced if clusters are there.")],
    min_size: Annotated[
        int | None, typer.Option(min=1, help="Least shorter side of a character's box in pixels; for films 100 to 200.")
    ] = None,
    aspect_ratio: Annotated[
        str | None, typer.Option(help="Least and most width over height of a box, as in 0.5-2.0.")
    ] = None,
    use_face_detection: Annotated[
        bool | None, typer.Option("--use-face-detection", help="Only characters with a face.")
    ] = None,
    pose_estimation: Annotated[
        str | None, typer.Option(help="Weights of an ultralytics pose model, or toybox-pose: names and records poses.")
    ] = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR: its cluster is called NAME. May be given several times.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML or JSON with filters, weights and thresholds.")] = None,
    detector: DatasetDetectorOption = None,
    detector_config: DetectorConfigOption = None,
    scorer: ScorerOption = "toybox",
    scorer_pretrained: ScorerWeightsOption = None,
    services: ServicesOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Group the characters of pictures by who they are."""
    from onmodel.core.progress import bar
    from onmodel.dataset.facts import Facts
    from onmodel.dataset.folder import load_dataset
    from onmodel.film.cluster import Looking, cluster
    from onmodel.film.cluster_output import refuse_foreign, write
    from onmodel.film.poses import PoseModel
    from onmodel.scoring.config import ScorerConfig

    loaded = load_dataset(dataset)
    refuse_foreign(output_dir, loaded)
    given = {"min_size": min_size, "aspect_ratio": _range(aspect_ratio), "use_face_detection": use_face_detection}
    settings = _settings(config, {key: value for key, value in given.items() if value is not None})
    facts = Facts.open(loaded.path)
    seeing = detector_for(facts, detector, detector_config)
    looking = Looking(seeing, ScorerConfig.model_validate({"model": scorer, "pretrained": scorer_pretrained}), services)
    references = _references(reference or [])
    pose = PoseModel(pose_estimation) if pose_estimation else None
    with bar("looking at characters", 2 * len(loaded.pictures)) as shown:
        found = cluster(loaded, looking, settings, references=references, pose=pose, facts=facts, advance=shown.advance)
    result = write(found, loaded, output_dir, looking.detector)
    if json:
        typer.echo(result.model_dump_json())
        return
    _print(result, found.unreadable)


def _range(text: str | None) -> tuple[float, float] | None:
    """Two numbers from "0.5-2.0". Raises UserError."""
    from onmodel.core.errors import UserError

    if text is None:
        return None
    low, dash, high = text.partition("-")
    try:
        pair = (float(low), float(high))
    except ValueError:
        pair = (0.0, 0.0)
    if not dash or not 0 < pair[0] <= pair[1]:
        raise UserError(f"--aspect-ratio {text}: give two numbers, the smaller one first, as in 0.5-2.0")
    return pair


def _settings(path: Path | None, given: dict[str, Any]) -> "ClusterConfig":
    """The file's settings with the command line's over them. Raises UserError."""
    from onmodel.core.config import read_mapping, validate
    from onmodel.film.cluster import ClusterConfig

    return validate(ClusterConfig, {**(read_mapping(path) if path else {}), **given}, str(path or "cluster"))


def _references(texts: list[str]) -> dict[str, Path]:
    """Folders by name. Raises UserError for a malformed or double name, NotFoundError for no such folder."""
    from onmodel.core.errors import UserError
    from onmodel.core.files import existing
    from onmodel.film.cluster_output import OUTLIERS

    found: dict[str, Path] = {}
    for text in texts:
        name, sign, folder = text.partition("=")
        if not sign or not name or not folder:
            raise UserError(f"--reference {text}: give a name and a folder, as in zibo=references/zibo")
        if name in found:
            raise UserError(f"--reference {text}: the name {name} is given twice; put its pictures into one folder")
        if "/" in name or name.startswith(".") or name == OUTLIERS:
            raise UserError(f"--reference {text}: {name} cannot be a cluster's folder; choose a plain name")
        found[name] = existing(Path(folder), "folder of reference pictures")
    return found


def _print(result: "ClusterResult", unreadable: list[str]) -> None:
    from rich.table import Table

    from onmodel.dataset.report import terminal
    from onmodel.film.cluster_output import PAGE

    out = terminal()
    shown = Table(title=f"{result.pictures} pictures, {result.instances} characters in them", title_justify="left")
    for heading in ("cluster", "instances", "pictures"):
        shown.add_column(heading, justify="left" if heading == "cluster" else "right")
    for folder in result.clusters:
        shown.add_row(folder.name, str(folder.instances), str(folder.pictures))
    shown.add_row("outliers", str(result.outliers), str(result.outlier_pictures), style="dim")
    out.print(shown)
    lines = [f"unreadable: {sentence}" for sentence in unreadable[:10]]
    if result.refused:
        lines.append("not compared: " + ", ".join(f"{count} {why}" for why, count in result.refused.items()))
    if result.poses:
        lines.append("poses: " + ", ".join(f"{count} {pose}" for pose, count in result.poses.items()))
    lines += [*result.notes, f"page: {Path(result.output_dir) / PAGE}"]
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
