"""Every family with every network: the names in its files, and what it draws when it is loaded or merged."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from peft import PeftModel
from torch import Tensor

from onmodel.training import export, network
from onmodel.training.config import ModelSection
from onmodel.training.families import Family, make_family
from onmodel.training.merge import merge_lora
from onmodel.training.network_spec import NetworkSpec, make_spec
from onmodel.training.pipeline import LoadedLora, load_lora, load_pipeline, set_lora_scale, unload_lora

from .key_rules import KEYS, layer_names

LORA = {"lora_down.weight", "lora_up.weight", "alpha"}
HADA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"}


@dataclass(frozen=True)
class Kind:
    """A network, and what a file of it holds."""

    module: str
    args: tuple[str, ...]
    names: str
    """Ending of the list of its layers' names, after the family's."""
    parts: frozenset[str] | None
    """Of each layer; None: they differ by layer."""


KINDS = {
    "lora": Kind("networks.lora", (), "", frozenset(LORA)),
    "locon": Kind("networks.lora", ("conv_dim=3", "conv_alpha=2"), "_convolutions", frozenset(LORA)),
    "dora": Kind("networks.lora", ("dora_wd=True", "conv_dim=2"), "_convolutions", frozenset({*LORA, "dora_scale"})),
    "rslora": Kind("networks.lora", ("rs_lora=True",), "", frozenset(LORA)),
    "loha": Kind("lycoris.kohya", ("algo=loha",), "_convolutions", frozenset(HADA)),
    "lokr": Kind("lycoris.kohya", ("algo=lokr", "factor=4"), "_convolutions", None),
    "tucker": Kind("lycoris.kohya", ("algo=lokr", "use_tucker=True", "decompose_both=True"), "_convolutions", None),
}
CASES = [(base, kind) for base in ("sd1", "sdxl", "flux") for kind in KINDS if (base, kind) != ("flux", "tucker")]


def spec_of(kind: str) -> NetworkSpec:
    return make_spec(KINDS[kind].module, 4, 2.0, KINDS[kind].args)


@torch.no_grad()
def randomize(components: Any) -> None:
    """As after training: no part is zero any more."""
    generator = torch.Generator().manual_seed(8)
    for module in components.values():
        for _, layer in network.lora_layers(module):
            for name, parameter in network.layer_parts(layer).items():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(
                    parameter * (1 + 0.1 * noise) if name == "dora_scale" else noise * (0.5 if "hada" in name else 0.2)
                )


@torch.no_grad()
def output(family: Family) -> Tensor:
    """What the denoiser says of fixed latents and a caption, text encoders included."""
    latents = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(5))
    return family.predict(latents, torch.tensor([20, 700]), family.encode_captions(["zork boy", "a street"]))


def open_base(folder: Path) -> tuple[Any, Family]:
    pipeline = load_pipeline(str(folder))
    return pipeline, make_family(pipeline, ModelSection(pretrained_model_name_or_path=str(folder)))


@pytest.fixture(scope="module")
def opened(tiny_base: Callable[[str], Path]) -> Callable[[str], tuple[Any, Family]]:
    """A family's tiny pipeline, loaded once; whoever puts a network on it takes it off again."""
    kept: dict[str, tuple[Any, Family]] = {}

    def get(base: str) -> tuple[Any, Family]:
        if base not in kept:
            kept[base] = open_base(tiny_base(base))
        unload_lora(kept[base][0])
        return kept[base]

    return get


Trained = Callable[[str, str], tuple[Path, Path, Tensor, Tensor]]


@pytest.fixture(scope="module")
def trained(
    tiny_base: Callable[[str], Path],
    opened: Callable[[str], tuple[Any, Family]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """Base folder, folder of the files, the base model's output, and the output at training's end."""
    root = tmp_path_factory.mktemp("networks")
    made: dict[tuple[str, str], tuple[Path, Path, Tensor, Tensor]] = {}

    def make(base: str, kind: str) -> tuple[Path, Path, Tensor, Tensor]:
        if (base, kind) not in made:
            folder = root / f"{base}-{kind}"
            _, family = opened(base)
            before = output(family)
            network.attach(family.components, spec_of(kind), family.naming, seed=3)
            torch.testing.assert_close(output(family), before, atol=1e-5, rtol=1e-4)
            randomize(family.components)
            weights = network.read_weights(family.components)
            export.write_lora(folder / "lora.safetensors", weights, family.naming, {"ss_network_dim": "4"})
            export.write_peft(folder / "peft", weights, spec_of(kind))
            made[base, kind] = (tiny_base(base), folder, before, output(family))
        return made[base, kind]

    return make


def test_lists_of_names_are_what_the_rule_counts_out() -> None:
    assert {file.stem: file.read_text().split() for file in KEYS.glob("*.txt")} == layer_names()


@pytest.mark.parametrize(("base", "kind"), CASES)
def test_files_hold_the_listed_names(base: str, kind: str, trained: Trained) -> None:
    _, folder, _, _ = trained(base, kind)
    tensors = safetensors.torch.load_file(folder / "lora.safetensors")
    family = {"sd1": "sd"}.get(base, base)
    flux_list = "flux_lycoris" if KINDS[kind].module == "lycoris.kohya" else "flux"
    listed = flux_list if base == "flux" else family + KINDS[kind].names
    assert sorted({key.partition(".")[0] for key in tensors}) == (KEYS / f"{listed}.txt").read_text().split()
    for name in {key.partition(".")[0] for key in tensors}:
        parts = {key.partition(".")[2] for key in tensors if key.startswith(f"{name}.")}
        if KINDS[kind].parts is not None:
            assert parts == KINDS[kind].parts
        else:
            assert parts <= {
                "lokr_w1",
                "lokr_w1_a",
                "lokr_w1_b",
                "lokr_w2",
                "lokr_w2_a",
                "lokr_w2_b",
                "lokr_t2",
                "alpha",
            }


@pytest.mark.parametrize(("base", "kind"), CASES)
@pytest.mark.parametrize("file", ["lora.safetensors", "peft"])
def test_loaded_output_is_the_output_at_trainings_end(
    file: str, base: str, kind: str, trained: Trained, opened: Callable[[str], tuple[Any, Family]]
) -> None:
    _, folder, before, after = trained(base, kind)
    pipeline, family = opened(base)
    load_lora(pipeline, folder / file)
    assert (after - before).abs().max() > 0.02, "the network changes nothing"
    torch.testing.assert_close(output(family), after, atol=2e-5, rtol=1e-3)
    if kind != "dora":  # its magnitudes stay at scale 0
        set_lora_scale(pipeline, 0.0)
        torch.testing.assert_close(output(family), before, atol=1e-5, rtol=1e-4)
    unload_lora(pipeline)
    assert torch.equal(output(family), before)
    load_lora(pipeline, folder / file, 0.5)
    half = output(family)
    unload_lora(pipeline)
    merged = LoadedLora(pipeline, folder / file, 0.5)
    torch.testing.assert_close(output(family), half, atol=2e-5, rtol=1e-3)
    assert merged.changes_text
    merged.undo()
    assert torch.equal(output(family), before)


@pytest.mark.parametrize(
    ("base", "kind"), [*(("sd1", kind) for kind in KINDS), ("sdxl", "locon"), ("flux", "lora"), ("flux", "loha")]
)
def test_merged_base_gives_the_output_of_base_and_network(
    base: str, kind: str, trained: Trained, tmp_path: Path
) -> None:
    where, folder, _, after = trained(base, kind)
    merge_lora(folder / "lora.safetensors", str(where), tmp_path / "merged")
    _, family = open_base(tmp_path / "merged")
    torch.testing.assert_close(output(family), after, atol=5e-5, rtol=1e-3)


READ_BY_DIFFUSERS = [
    ("sd1", "lora", "lora.safetensors"),
    ("sd1", "locon", "lora.safetensors"),
    ("sd1", "rslora", "lora.safetensors"),
    ("sdxl", "locon", "lora.safetensors"),
    ("sd1", "dora", "peft"),
    ("sdxl", "locon", "peft"),
    ("flux", "lora", "peft"),
    ("flux", "dora", "peft"),
]
"""Of sd-scripts' files for Flux it reads those of the real model's width alone, and no DoRA."""


@pytest.mark.parametrize(("base", "kind", "file"), READ_BY_DIFFUSERS)
def test_diffusers_loads_every_key(
    base: str, kind: str, file: str, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    where, folder, _, after = trained(base, kind)
    pipeline, family = open_base(where)
    with caplog.at_level("WARNING"):
        pipeline.load_lora_weights(folder / file)
    said = [record.getMessage() for record in caplog.records]
    assert not [text for text in said if re.search("unexpected|missing|No LoRA keys", text, re.IGNORECASE)], said
    torch.testing.assert_close(output(family), after, atol=2e-5, rtol=1e-3)


def test_diffusers_reads_the_double_blocks_of_a_flux_file(
    tiny_base: Callable[[str], Path], opened: Callable[[str], tuple[Any, Family]], tmp_path: Path
) -> None:
    """Its converter counts with the real model's widths in the single blocks, so these are left out."""
    _, family = opened("flux")
    spec = make_spec("networks.lora_flux", 4, 2.0, ["train_blocks=double", "txt_mlp_dim=2"])
    network.attach(family.components, spec, family.naming, seed=3)
    randomize(family.components)
    weights, after = network.read_weights(family.components), output(family)
    assert weights["transformer"]["transformer_blocks.0.ff_context.net.2"].rank == 2
    export.write_lora(tmp_path / "lora.safetensors", weights, family.naming, {})
    pipeline, loaded = open_base(tiny_base("flux"))
    pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    torch.testing.assert_close(output(loaded), after, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize(("base", "kind", "component"), [("sd1", "loha", "unet"), ("sdxl", "lokr", "text_encoder_2")])
def test_peft_loads_its_copy(
    base: str, kind: str, component: str, trained: Trained, opened: Callable[[str], tuple[Any, Family]]
) -> None:
    where, folder, _, _ = trained(base, kind)
    pipeline, family = opened(base)
    load_lora(pipeline, folder / "lora.safetensors")
    for name in set(family.components) - {component}:
        network.detach(family.components[name])
    mine = output(family)
    other, theirs = open_base(where)
    PeftModel.from_pretrained(getattr(other, component), folder / "peft" / component)
    torch.testing.assert_close(output(theirs), mine, atol=2e-5, rtol=1e-3)
