"""From settings to a session: reads the folder, analyses what is not known, opens what was decided before."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from onmodel.core.config import Config, load
from onmodel.core.errors import UserError
from onmodel.core.progress import bar
from onmodel.curation.background import Background, Embedder
from onmodel.curation.cache import Cache
from onmodel.curation.catalogue import Catalogue, load_catalogue, read_source
from onmodel.curation.embedders import LocalEmbedder, ServiceEmbedder
from onmodel.curation.export import check_target, state_folder
from onmodel.curation.session import PageOptions, Session
from onmodel.curation.store import FILE, Store
from onmodel.curation.targets import Target, from_composition, from_recommended
from onmodel.dataset.composition import load_composition
from onmodel.dataset.recommended import load_recommended
from onmodel.detection.config import DetectorConfig
from onmodel.detection.weights import local_model
from onmodel.scoring.client import ScoringClient
from onmodel.scoring.config import ScorerConfig
from onmodel.serving.local import open_services


class Settings(Config):
    """What a curation needs to know."""

    source: Path
    """Folder of clusters, dataset folder, or dataset TOML."""
    output_dir: Path
    """Where the kept set goes; decisions lie in `<output_dir>.curation`."""
    composition: str | None = None
    """File or packaged name; None = `recommended`."""
    recommended: Path | None = None
    """File of other recommended ranges."""
    detector: str | None = None
    """Preset; None = what the facts were found with, else toybox."""
    detector_config: Path | None = None
    services: str | None = None
    """HOST:PORT of running services; None = detection is started here where it is needed."""
    scorer: ScorerConfig = ScorerConfig()
    """For similarity search without `services`."""
    embeddings: bool = True
    """Whether similarity search may load a model."""
    page: PageOptions = PageOptions()


@contextmanager
def open_session(settings: Settings) -> Generator[Session]:
    """A session for as long as the block; its background work is not started.

    Raises:
        UserError: of the folder, the output folder, the decisions' file, or a setting.
        ServiceError: detection is needed and fails.
    """
    check_target(settings.source, settings.output_dir)
    # Read again once the pictures are known; a wrong file is said before minutes of analysing.
    read_target(settings, 0)
    folder = state_folder(settings.output_dir)
    with ExitStack() as stack:
        # Before the pictures for the same reason: the file of decisions may be damaged.
        store = stack.enter_context(Store(folder / FILE))
        catalogue = read_catalogue(settings)
        cache = Cache(folder)
        stack.callback(cache.close)
        embedder: Callable[[], Embedder] | None = None
        if settings.embeddings and settings.services is not None:
            client = ScoringClient(settings.services)
            stack.callback(client.close)
            embedder = partial(ServiceEmbedder, client)
        elif settings.embeddings:
            embedder = partial(LocalEmbedder, settings.scorer)
        background = Background(catalogue, cache, embedder)
        stack.callback(background.stop)
        target = read_target(settings, len(catalogue.entries))
        yield Session(catalogue, store, cache, background, target, settings.output_dir, settings.page)


def read_target(settings: Settings, available: int) -> Target:
    """What the kept set is held against. Raises UserError of a wrong file, or when both kinds are given."""
    if settings.composition is not None and settings.recommended is not None:
        raise UserError("--composition and --recommended are two targets; give one of them")
    if settings.composition is not None:
        return from_composition(load_composition(settings.composition), Path(settings.composition).stem)
    return from_recommended(load_recommended(settings.recommended), available)


def read_catalogue(settings: Settings) -> Catalogue:
    """The pictures with their facts. Raises as `load_catalogue`."""
    chosen = settings.detector is not None or settings.detector_config is not None
    config = DetectorConfig.preset(settings.detector or "toybox")
    if settings.detector_config is not None:
        config = load(DetectorConfig, settings.detector_config)
    model = None
    if settings.services is None:
        model = local_model(config)
    datasets, _ = read_source(settings.source)
    total = sum(len(dataset.pictures) for dataset in datasets)
    with open_services(settings.services, detector=config) as services, bar("reading", total) as shown:
        return load_catalogue(settings.source, services, model=model, chosen=chosen, advance=shown.advance)
