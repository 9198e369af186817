"""OnModel: keep a 3D-animated character on model, from dataset to LoRA."""

from typing import Final

__version__: Final = "0.1.0"
