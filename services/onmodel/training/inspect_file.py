"""What a LoRA file holds: its metadata, and rank, alpha and norm of its layers. Needs no base model."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onmodel.training.lora_file import read_layers
from onmodel.training.weights import MAGNITUDE, LayerWeights


@dataclass(frozen=True)
class LayerFacts:
    """One layer of a file."""

    name: str
    kind: str
    """`lora`, `dora`, `loha` or `lokr`."""
    rank: int
    alpha: float
    norm: float
    """Frobenius norm of what the layer adds to the base weight at scale 1 (DoRA's magnitudes left out)."""
    dtype: str


@dataclass(frozen=True)
class FileFacts:
    """A LoRA file."""

    metadata: dict[str, Any]
    """By key, with the JSON tables in it opened up."""
    layers: list[LayerFacts]
    """By name."""

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        return {"metadata": self.metadata, "layers": [vars(layer) for layer in self.layers]}

    def parts(self) -> list[tuple[str, list[LayerFacts]]]:
        """Layers by the part of the model that their names start with."""
        groups: dict[str, list[LayerFacts]] = {}
        for layer in self.layers:
            groups.setdefault(_part(layer.name), []).append(layer)
        return sorted(groups.items())


def inspect(file: Path) -> FileFacts:
    """Read `file`. Raises as `read_layers`."""
    layers, metadata = read_layers(file)
    facts = [_facts(name, layer) for name, layer in sorted(layers.items())]
    return FileFacts({key: _opened(value) for key, value in sorted(metadata.items())}, facts)


def _facts(name: str, layer: LayerWeights) -> LayerFacts:
    kind = "dora" if MAGNITUDE in layer.parts else layer.kind
    dtype = str(next(iter(layer.parts.values())).dtype).removeprefix("torch.")
    return LayerFacts(name, kind, layer.rank, layer.alpha, layer.norm, dtype)


def _opened(value: str) -> Any:
    try:
        return json.loads(value) if value[:1] in ("{", "[") else value
    except ValueError:
        return value


def _part(name: str) -> str:
    if name.startswith("lora_"):
        return "_".join(name.split("_")[:2])
    return "lycoris" if name.startswith("lycoris_") else name.partition(".")[0]


def counted(values: list[Any]) -> str:
    """`4 (60), 8 (12)`: each value and how often it occurs, the commonest first."""
    counts = Counter(values).most_common()
    return f"{counts[0][0]}" if len(counts) == 1 else ", ".join(f"{value} ({count})" for value, count in counts)
