"""`onmodel curate`: keep, reject, move and correct pictures on a page in the browser."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from onmodel.cli.measuring import ServicesOption


class FilterMode(StrEnum):
    """Which pictures come first."""

    ALL = "all"
    """By cluster and name."""
    BALANCED = "balanced"
    """Those of categories that are still missing."""


class Similarity(StrEnum):
    """What similarity search goes by."""

    CLIP = "clip"
    """Embeddings of the main character, made in the background."""
    HASH = "hash"
    """Perceptual hashes alone; loads no model."""


def command(
    clusters: Annotated[Path, typer.Argument(help="Folder of clusters, any dataset folder, or a dataset TOML.")],
    output_dir: Annotated[Path, typer.Option(help="Folder for the kept set; decisions lie in DIR.curation beside it.")],
    show_metadata: Annotated[bool, typer.Option(help="Show shot type, size, pose, context and caption.")] = False,
    filter_mode: Annotated[
        FilterMode, typer.Option(help="balanced puts pictures of missing categories first.")
    ] = FilterMode.ALL,
    composition: Annotated[
        str | None, typer.Option(help="Target mix: a JSON file or a packaged name. Else the recommended shares.")
    ] = None,
    recommended: Annotated[Path | None, typer.Option(help="TOML or JSON with other recommended ranges.")] = None,
    similarity: Annotated[Similarity, typer.Option(help="What similarity search goes by.")] = Similarity.CLIP,
    host: Annotated[str, typer.Option(help="Interface; any but the loopback one asks for a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8420,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    export: Annotated[bool, typer.Option("--export", help="Write the kept set and end; no page.")] = False,
    keep_undecided: Annotated[
        bool, typer.Option("--keep-undecided", help="With --export: what nobody rejected counts as kept.")
    ] = False,
    detector: Annotated[
        str | None, typer.Option(help="Detector preset: toybox or film. Else what the facts were found with.")
    ] = None,
    detector_config: Annotated[Path | None, typer.Option(help="TOML with all detector settings instead.")] = None,
    services: ServicesOption = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the page's address, or what was written, as JSON.")
    ] = False,
) -> None:
    """Keep, reject and correct pictures on a page in the browser."""
    import contextlib
    import dataclasses
    import json as jsonlib
    import webbrowser

    from onmodel.core.errors import UserError
    from onmodel.core.progress import console
    from onmodel.curation.server import listen, make_server
    from onmodel.curation.session import PageOptions
    from onmodel.curation.start import Settings, open_session

    if keep_undecided and not export:
        raise UserError("--keep-undecided goes with --export; on the page, keep what you want with `a` and `k`")
    settings = Settings(
        source=clusters,
        output_dir=output_dir,
        composition=composition,
        recommended=recommended,
        detector=detector,
        detector_config=detector_config,
        services=services,
        embeddings=similarity is Similarity.CLIP and not export,
        page=PageOptions(show_metadata=show_metadata, filter_mode=filter_mode.value),
    )
    if export:
        with open_session(settings) as session:
            done = session.write(keep_undecided=keep_undecided)
        if json:
            typer.echo(jsonlib.dumps({**dataclasses.asdict(done), "output_dir": str(done.output_dir)}))
            return
        typer.echo(f"{done.kept} pictures written to {done.output_dir}")
        for sentence in done.skipped:
            typer.echo(f"left out: {sentence}")
        return
    # Taken first: a port in use is answered before pictures are analysed for minutes.
    listening = listen(host, port)
    with listening.socket, open_session(settings) as session:
        session.background.start()
        for note in session.catalogue.notes:
            console.print(note, style="yellow", highlight=False, markup=False)
        counts = session.counts()
        if json:
            typer.echo(jsonlib.dumps({"url": listening.url, "decisions": str(session.store.path), **counts}))
        else:
            typer.echo(f"{counts['pictures']} pictures, {counts['undecided']} undecided: {listening.url}")
            typer.echo(f"Every decision is kept in {session.store.path}. Ctrl-C ends.")
        if open_page:
            webbrowser.open(listening.url)
        # uvicorn ends in order at Ctrl-C and then hands the signal on.
        with contextlib.suppress(KeyboardInterrupt):
            make_server(session, listening).run(sockets=[listening.socket])
        counts = session.counts()
        said = f"{counts['kept']} kept, {counts['rejected']} rejected, {counts['undecided']} undecided; all is on disk."
        console.print(said, highlight=False)
