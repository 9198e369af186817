"""Settings of scoring: which CLIP model, and how it runs."""

import hashlib
from pathlib import Path

from pydantic import Field

from onmodel.core.config import Config
from onmodel.core.errors import NotFoundError, UserError
from onmodel.core.files import file_hash, tree_hash

CONFIG_FILE = "open_clip_config.json"
"""What makes a folder an open_clip model."""


class ScorerConfig(Config):
    """Which open_clip model scores."""

    model: str = "toybox"
    """"toybox" (bundled), a folder with open_clip_config.json, `hf-hub:OWNER/NAME`, or an open_clip architecture."""
    pretrained: str | None = None
    """For an architecture: a published tag, or a checkpoint file."""
    device: str = "auto"
    """"auto" (cuda where there is one), "cpu", "cuda", "cuda:1"."""
    batch_size: int = Field(default=32, ge=1)
    """Most pictures the model takes at once."""

    def folder(self) -> Path | None:
        """The model's folder where it has one.

        Raises:
            NotFoundError: a path that is none, or a folder that holds no open_clip model.
            UserError: a file where a folder is meant.
        """
        if self.model == "toybox":
            # Imported here: only who asks for the bundled models needs the toybox.
            from onmodel.toybox.models import bundled

            return bundled("clip")
        if self.model.startswith("hf-hub:"):
            return None
        path = Path(self.model.removeprefix("local-dir:")).expanduser()
        if path.is_file():
            raise UserError(
                f"{path}: a checkpoint alone does not say its architecture; set model to it "
                f'(for example "ViT-B-32") and pretrained to this file'
            )
        if path.is_dir():
            if not (path / CONFIG_FILE).is_file():
                raise NotFoundError(f"{path}: no {CONFIG_FILE} in it; give a folder saved by open_clip")
            return path
        if "/" in self.model or self.model.startswith((".", "~")):
            raise NotFoundError(f"{path}: no such folder; check the scorer's `model`")
        return None

    @property
    def hash(self) -> str:
        """SHA-256 that names the weights, found without loading them: of the files where they are local,
        of the published name where they are fetched by name. Caches key on it. Raises as `folder`."""
        folder = self.folder()
        if folder is not None:
            return tree_hash(folder)
        digest = hashlib.sha256(f"open_clip {self.model} ".encode())
        checkpoint = self.checkpoint()
        digest.update(file_hash(checkpoint).encode() if checkpoint else str(self.pretrained).encode())
        return digest.hexdigest()

    def checkpoint(self) -> Path | None:
        """`pretrained` as a file, where it is one. Raises NotFoundError when it looks like one and is none."""
        if self.pretrained is None:
            return None
        path = Path(self.pretrained).expanduser()
        if path.is_file():
            return path
        if "/" in self.pretrained or path.suffix in (".pt", ".pth", ".bin", ".safetensors"):
            raise NotFoundError(f"{path}: no such checkpoint; check the scorer's `pretrained`")
        return None
