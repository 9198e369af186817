"""Fixtures that every test package may use."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from onmodel.core.imports import collector_paused
from pages import blocks, commands

# A shell that starts `make test` in the background lets it and all below ignore Ctrl-C, which tests send to verbs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROTOS = Path(__file__).parents[1] / "protos"
CONFORMANCE = Path(__file__).parent / "conformance"
SHARED_ASSETS = Path(__file__).parents[2] / "shared" / "assets"


@pytest.fixture(scope="session")
def shared_assets() -> Path:
    """The folder of films, subjects and small weights that tests read; absent from a user's clone."""
    if not SHARED_ASSETS.is_dir():
        pytest.skip("the shared assets (film, subject pictures, detector weights) are not beside this checkout")
    return SHARED_ASSETS


@pytest.fixture(scope="module")
def browser() -> Generator[Any]:
    """Debian's Chromium through playwright.

    For a file and no longer: while it is open, playwright's event loop counts as running in this thread, and a test of
    another file that the same process runs next could not start its own.
    """
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Encoded pictures of the tests do not land in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONMODEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def call_from_node() -> Callable[[str, Sequence[dict[str, Any]]], list[Any]]:
    """Calls services from Node, by the .proto files alone: (address, [{service, method, application, request}, …]).

    Gives the reply of each call as protobuf's JSON, the list of replies of a streaming one (at most `items` of them),
    or of a call that fails {"code": status, "details": sentence}.
    """
    node, client = shutil.which("node"), CONFORMANCE / "client.js"
    if node is None or not (CONFORMANCE / "node_modules").is_dir():
        pytest.skip("Node or its gRPC package is not installed; `make test` does so where it may")

    def call(address: str, calls: Sequence[dict[str, Any]]) -> list[Any]:
        done = subprocess.run(
            [node, str(client), str(PROTOS), address],
            input=json.dumps(list(calls)),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return [answer.get("ok", answer) for answer in json.loads(done.stdout)]

    return call


@pytest.fixture(scope="module")
def running_services() -> Generator[str]:
    """HOST:PORT of detection and scoring with the bundled models."""
    from onmodel.serving.local import open_services

    with open_services(None) as services:
        services.start("detection", "scoring")
        assert services.address is not None
        yield services.address


@pytest.fixture
def run_page(tmp_path: Path, running_services: str) -> Generator[Callable[..., None]]:
    """Runs what a page shows, in its order and in the test's folder: (page, changes, programs).

    The first command starts the services that it needs, the others find running ones by ONMODEL_SERVICES: to start
    them takes a verb longer than all else it does here.

    Blocks with a title are written to the file of that name; the others run: Python as it is, bash by its lines that
    begin with one of `programs`. `changes` are texts in place of others, each of which the page must show.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ONMODEL_CACHE": str(tmp_path / "cache"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }

    def run(page: Path, changes: Mapping[str, str], programs: Sequence[str] = ("onmodel",)) -> None:
        text = page.read_text(encoding="utf-8")
        for shown, instead in changes.items():
            assert shown in text, f"{page.name} no longer shows {shown!r}"
            text = text.replace(shown, instead)
        wanted: list[list[str]] = []
        for block in blocks(text):
            if block.title:
                (tmp_path / block.title).write_text(block.text, encoding="utf-8")
            elif block.kind == "python":
                wanted.append([sys.executable, "-c", block.text])
            elif block.kind == "bash":
                wanted += [["bash", "-c", line] for line in commands(block) if line.split(" ")[0] in programs]
        for number, command in enumerate(wanted):
            if number == 1:
                environment["ONMODEL_SERVICES"] = running_services
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"

    yield run
    if (tmp_path / "state").exists():
        subprocess.run(["onmodel", "serve", "down"], env=environment, capture_output=True, check=False)


LONGEST = (
    "tests/test_readme.py",
    "training/test_run.py",
    "experiments/test_four_strategies_run.py",
    "serving/test_local_cluster.py",
    "ablation/test_together.py",
    "tests/test_tutorial.py",
    "recipes/test_recipes.py",
    "evaluation/test_demo.py",
    "jobs/test_cluster.py",
    "deployment/test_operations.py",
    "training/test_forward.py",
    "curation/test_page.py",
    "jobs/test_cut_off.py",
    "training/test_workers.py",
)
"""A minute and more each, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then those that start clusters: side by side nothing may be left to wait for one."""
    slow = {item.path for item in items if item.get_closest_marker("ray") is not None}

    def place(item: pytest.Item) -> tuple[int, bool]:
        longest = [number for number, name in enumerate(LONGEST) if item.path.as_posix().endswith(name)]
        return (longest or [len(LONGEST)])[0], item.path not in slow

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What all test files import (torch, diffusers, Ray, …) lives to the end: the collector need not go through it."""
    with collector_paused():
        collected = yield
    gc.freeze()
    return collected


def pytest_unconfigure() -> None:
    """Libraries that find their own objects left over at the end say so at length."""
    gc.unfreeze()


CLIP_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
CLIP_PREPROCESS = {
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP model with random weights, saved as open_clip saves them."""
    # Imported here: most tests have no need of torch.
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    model = open_clip.CLIP(**CLIP_CONFIG)  # pyright: ignore[reportArgumentType]
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    config = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": CLIP_PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder
