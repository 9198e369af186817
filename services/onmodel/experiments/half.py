"""LoRA files in half precision: half the bytes, and nothing that drawing in half precision would see."""

from pathlib import Path

import safetensors.torch
import torch
from safetensors import safe_open

from onmodel.core.files import write_bytes
from onmodel.training.export import model_hashes

HASHES = ("sshs_model_hash", "sshs_legacy_hash")


def halve(source: Path, target: Path) -> None:
    """Write the LoRA in `source` to `target` as float16, with its metadata and hashes of its own."""
    with safe_open(source, framework="pt") as file:
        metadata = {key: value for key, value in (file.metadata() or {}).items() if key not in HASHES}
        tensors = {name: file.get_tensor(name).to(torch.float16) for name in file.keys()}  # noqa: SIM118
    metadata |= model_hashes(tensors, metadata)
    write_bytes(target, safetensors.torch.save(tensors, metadata))
