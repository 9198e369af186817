"""Where weights come from: a path, the user's weights folder, the bundled set, or a pinned address fetched once.

The environment variable `ONMODEL_WEIGHTS` names a folder that is searched by file name before anything is fetched;
fetched files go there too.

A file that is a Python pickle (`.pt`) runs whatever its maker put into it when it is loaded. Such weights are opened by
their pinned hash alone: `yolo11n.pt@sha256:…`, which says that this very file is trusted.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pooch
import requests

from onmodel.common.convert import ModelInfo
from onmodel.core.errors import NotFoundError, ResourceError, UserError
from onmodel.core.files import file_hash
from onmodel.core.progress import bar
from onmodel.detection.config import DetectorConfig

ENVIRONMENT = "ONMODEL_WEIGHTS"
PIN = "@sha256:"
"""Between a name and the hash that its file must have."""
DATA_ONLY = frozenset({".onnx", ".safetensors"})
"""Formats that hold numbers and no code."""


BUNDLED: dict[str, Literal["detector", "pose"]] = {"toybox": "detector", "toybox-pose": "pose"}
"""Names of weights that come with the package."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """One published file: `files` are the names it may have on disk, the first the one we give it."""

    files: tuple[str, ...]
    url: str
    size: int
    sha256: str


KNOWN: dict[str, Pinned] = {
    "yolox_nano": Pinned(
        ("yolox_nano.onnx",),
        "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano.onnx",
        3_678_356,
        "e8af074932d4ed7e232278e3055cefcdea3edf178874a3694ae292649fb464dd",
    ),
    "yunet": Pinned(
        ("face_detection_yunet_2026may.onnx", "face_detection_yunet.onnx"),
        "https://github.com/opencv/opencv_zoo/raw/47534e27c9851bb1128ccc0102f1145e27f23f98"
        "/models/face_detection_yunet/face_detection_yunet_2026may.onnx",
        229_738,
        "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
    ),
}


def weights_folder() -> Path:
    """`$ONMODEL_WEIGHTS`, else `weights` in the user's cache."""
    given = os.environ.get(ENVIRONMENT)
    return Path(given).expanduser() if given else Path(pooch.os_cache("onmodel")) / "weights"


def find_weights(name: str) -> Path:
    """The file behind `name`: a bundled or known name, a file in the weights folder, or a path.

    Args:
        name: with `@sha256:` and 64 hex digits at its end, the file must have that hash.

    Raises:
        NotFoundError: nothing is there and it could not be fetched; says which file to put where.
        UserError: a file of that name is there with other content than the pinned one, or it can run code when it is
            loaded and is not pinned.
    """
    if name in BUNDLED:
        from onmodel.toybox.models import bundled

        return bundled(BUNDLED[name])
    named, _, pin = name.partition(PIN)
    path = _find(named)
    if pin and file_hash(path) != pin.lower():
        raise UserError(f"{path}: is not the file that `{name}` names (its SHA-256 is another); get it there again")
    if not pin and path.suffix.lower() not in DATA_ONLY:
        raise UserError(
            f"{path}: files of this kind can run a program when they are loaded, so they are opened by their hash "
            f"alone; if you trust where it is from, name it as {pinned(path, named)}"
        )
    return path


def pinned(path: Path, name: str = "") -> str:
    """The name, by default the path itself, that trusts a file as it is now."""
    return f"{name or path}{PIN}{file_hash(path)}"


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if name in KNOWN:
        return _pinned(name, KNOWN[name])
    placed = weights_folder() / name
    if placed.is_file():
        return placed
    raise NotFoundError(
        f"{name}: no such weights file; give a path, put the file into {weights_folder()}, "
        f"or use one of: {', '.join((*BUNDLED, *KNOWN))}"
    )


def weights_hash(*names: str | None) -> str:
    """SHA-256 over the files behind `names` (None is left out): names a detector without loading it."""
    hashes = [file_hash(find_weights(name)) for name in names if name is not None]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def local_model(config: DetectorConfig) -> ModelInfo:
    """What the detection service on this machine would call its model, without loading it. Raises as `find_weights`."""
    return ModelInfo(config.weights, weights_hash(config.weights, config.face_weights), config.hash)


def _pinned(name: str, pin: Pinned) -> Path:
    folder = weights_folder()
    for file in pin.files:
        placed = folder / file
        if placed.is_file():
            if placed.stat().st_size != pin.size or file_hash(placed) != pin.sha256:
                raise UserError(
                    f"{placed}: is not the published {name} (size or SHA-256 differ); remove it, or give its path"
                    " as the weights to use it anyway"
                )
            return placed
    return _fetch(name, pin, folder)


def _fetch(name: str, pin: Pinned, folder: Path) -> Path:
    target = pin.files[0]
    hint = f"put {target} ({pin.size} bytes, from {pin.url}) into {folder}, or set {ENVIRONMENT} to the folder with it"
    pooch.get_logger().setLevel("WARNING")
    try:
        got = pooch.retrieve(
            pin.url, known_hash=f"sha256:{pin.sha256}", fname=target, path=folder, downloader=_Download(name)
        )
    except ValueError:
        raise NotFoundError(f"{name}: what the address gave is not the published file; {hint}") from None
    except OSError as error:
        if error.errno in (28, 122):
            raise ResourceError(f"{name}: no room in {folder}; free some disk space") from None
        raise NotFoundError(f"{name}: the weights are not here and cannot be fetched; {hint}") from None
    return Path(got)


class _Download:
    """Pooch's own HTTP downloader with our progress bar and a deadline on connecting."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, fname: str, action: Any, pooch: Any, *, check_only: bool | None = None) -> None:
        """Called by pooch as (address, file to write, its own object)."""
        with requests.get(fname, stream=True, timeout=(5, 60)) as response:
            response.raise_for_status()
            total = int(response.headers.get("content-length", 0)) or None
            with bar(f"fetching {self._name}", total) as shown, Path(action).open("wb") as stream:
                for piece in response.iter_content(1 << 16):
                    stream.write(piece)
                    shown.advance(len(piece))
