"""Optimizers by name, and the step around them: clipping, float16, max-norm, averages, rates."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onmodel.core.errors import UserError
from onmodel.training import network
from onmodel.training.config import TrainConfig
from onmodel.training.loop import Alone, Trainer
from onmodel.training.optimizers import KINDS, check_optimizer, make_optimizer
from onmodel.training.update import Update, make_average
from onmodel.training.weights import DOWN, UP

from .conftest import MakeConfig
from .running import run_to
from .test_loop import make_trainer

CPU = torch.device("cpu")
HERE = [name for name, kind in KINDS.items() if kind.module != "bitsandbytes.optim"]
OWN_SIZE = ("Prodigy", "DAdaptAdam", "DAdaptAdaGrad", "DAdaptAdan", "DAdaptLion", "DAdaptSGD")
"""These find the size of their steps themselves, from a very small one; their rate multiplies it."""


def options(name: str) -> list[str]:
    start = ["d0=0.01"] if name in OWN_SIZE else []
    # Without it RAdam waits for its first five steps.
    others = {"SGDNesterov": ["momentum=0.9"], "RAdamScheduleFree": ["silent_sgd_phase=False"]}
    return others.get(name, start)


class Bowl(nn.Module):
    """A quadratic with its minimum at the target."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(4, 3, generator=generator))
        self.bias = nn.Parameter(torch.randn(3, generator=generator))
        self.target = torch.randn(4, 3, generator=generator)

    def value(self) -> Tensor:
        return (self.weight - self.target).square().sum() + self.bias.square().sum()


def make_update(config: TrainConfig, bowl: Bowl, steps: int = 10) -> Update:
    groups = [{"params": [bowl.weight, bowl.bias], "lr": config.optimizer.learning_rate}]
    parameters = [bowl.weight, bowl.bias]
    return Update(config, {}, groups, steps, CPU, make_average(config.training, parameters))


def take(update: Update, bowl: Bowl, count: int) -> None:
    for _ in range(count):
        update.backward(bowl.value())
        update.step()


@pytest.mark.parametrize("name", HERE)
def test_three_steps_of_each_lower_a_quadratic_and_resume_exactly(name: str, make_config: MakeConfig) -> None:
    rate = 1.0 if name in OWN_SIZE else 1e-2
    config = make_config(
        optimizer={"optimizer_type": name, "optimizer_args": options(name), "learning_rate": rate},
        training={"ema": True, "ema_decay": 0.5},
    )
    bowl = Bowl()
    before = bowl.value().item()
    update = make_update(config, bowl)
    take(update, bowl, 3)
    assert bowl.value().item() < before

    other = Bowl()
    other.load_state_dict(copy.deepcopy(bowl.state_dict()))
    resumed = make_update(config, other)
    resumed.load_state(copy.deepcopy(update.state()))
    take(update, bowl, 3)
    take(resumed, other, 3)
    assert torch.equal(bowl.weight, other.weight)
    with update.exported(), resumed.exported():
        assert torch.equal(bowl.weight, other.weight)


def test_names_are_taken_in_any_case_and_from_their_library(make_config: MakeConfig) -> None:
    for given, name in (("adamw", "AdamW"), ("torch.optim.SGD", "SGD"), ("Adafactor", "AdaFactor")):
        assert make_config(optimizer={"optimizer_type": given}).optimizer.optimizer_type == name
    with pytest.raises(UserError, match="did you mean Prodigy"):
        make_config(optimizer={"optimizer_type": "Prodigi"})


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("AdamW", ["weight_decy=0.1"], "AdamW has no argument `weight_decy`; did you mean `weight_decay`"),
        ("AdamW", ["lr=0.1"], "the rate is `learning_rate`"),
        ("AdamW", ["weight_decay=-1"], "AdamW refuses them"),
        ("Lion", ["momentum=0.9"], "Lion has no argument `momentum`"),
        ("Prodigy", ["d_coeff=2"], "did you mean `d_coef`"),
    ],
)
def test_arguments_are_checked_against_the_optimizer(name: str, args: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_optimizer(name, args)


def test_arguments_have_their_effect_under_both_libraries_names() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(2))]}]
    prodigy = make_optimizer("Prodigy", ["decouple=True", "d_coef=2", "betas=0.9,0.99"], groups, 1.0, warmup=0)
    settings = prodigy.param_groups[0]
    assert (settings["weight_decouple"], settings["d_coef"], settings["betas"]) == (True, 2, (0.9, 0.99))
    free = make_optimizer("AdamWScheduleFree", [], [{"params": [nn.Parameter(torch.zeros(2))]}], 1e-3, warmup=7)
    assert free.param_groups[0]["warmup_steps"] == 7


@pytest.mark.skipif(bool(__import__("importlib.util").util.find_spec("bitsandbytes")), reason="it is installed")
def test_a_library_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="bitsandbytes, which is not installed"):
        check_optimizer("AdamW8bit", [])


def test_the_average_is_the_formula_and_is_what_is_exported(make_config: MakeConfig) -> None:
    config = make_config(training={"ema": True, "ema_decay": 0.2})
    bowl = Bowl()
    update = make_update(config, bowl)
    average = bowl.weight.detach().clone()
    for step in range(1, 6):
        take(update, bowl, 1)
        decay = min(0.2, step / (9 + step)) if step > 1 else 0.0
        average = decay * average + (1 - decay) * bowl.weight.detach()
    own = bowl.weight.detach().clone()
    with update.exported():
        torch.testing.assert_close(bowl.weight.detach(), average)
    assert torch.equal(bowl.weight, own)


def test_schedule_free_exports_its_averaged_weights_and_goes_on_untouched(make_config: MakeConfig) -> None:
    config = make_config(optimizer={"optimizer_type": "AdamWScheduleFree", "learning_rate": 0.1})
    looked, alone = Bowl(), Bowl()
    updates = [make_update(config, bowl) for bowl in (looked, alone)]
    for step in range(4):
        for update, bowl in zip(updates, (looked, alone), strict=True):
            take(update, bowl, 1)
        with updates[0].exported():
            assert torch.equal(looked.weight, alone.weight) == (step == 0), "the first average is of one"
    assert torch.equal(looked.weight, alone.weight)


def test_gradients_that_float16_cannot_hold_move_nothing(make_config: MakeConfig) -> None:
    config = make_config(training={"mixed_precision": "fp16"}, optimizer={"lr_scheduler": "linear"})
    bowl = Bowl()
    update = make_update(config, bowl)
    take(update, bowl, 1)
    rates, weight = update.learning_rates, bowl.weight.detach().clone()
    assert rates[0] == pytest.approx(0.9 * config.optimizer.learning_rate)
    update.backward(bowl.value() * float("inf"))
    update.step()
    assert update.learning_rates == rates
    assert torch.equal(bowl.weight, weight)
    take(update, bowl, 1)
    assert update.learning_rates[0] == pytest.approx(0.8 * config.optimizer.learning_rate)


def test_gradients_are_clipped_to_the_norm(make_config: MakeConfig) -> None:
    config = make_config(optimizer={"optimizer_type": "SGD", "learning_rate": 1.0, "max_grad_norm": 0.5})
    bowl = Bowl()
    before = nn.utils.parameters_to_vector(bowl.parameters()).detach().clone()
    update = make_update(config, bowl)
    update.backward(bowl.value())
    norm = update.step()
    assert norm > 0.5
    after = nn.utils.parameters_to_vector(bowl.parameters()).detach()
    assert float((after - before).norm()) == pytest.approx(0.5, rel=1e-4)


def test_lora_plus_multiplies_the_rate_of_up_matrices_alone(make_config: MakeConfig) -> None:
    def one_step(*ratios: str) -> tuple[Trainer, dict[str, float]]:
        config = make_config(
            network={"network_args": list(ratios), "network_train_unet_only": False},
            optimizer={"optimizer_type": "SGD", "learning_rate": 0.1, "text_encoder_lr": 0.2, "max_grad_norm": 0.0},
        )
        trainer = make_trainer(config)
        return trainer, run_to(trainer, 1)[0][0].rates

    plain, _ = one_step()
    plus, rates = one_step("loraplus_lr_ratio=16", "loraplus_text_encoder_lr_ratio=4")
    assert rates == pytest.approx({"unet": 0.1, "unet_plus": 1.6, "text_encoder": 0.2, "text_encoder_plus": 0.8})
    for name, ratio in (("unet", 16), ("text_encoder", 4)):
        before, after = (network.read_weights(trainer.components)[name] for trainer in (plain, plus))
        assert any(layer.parts[UP].any() for layer in before.values())
        for path, layer in before.items():
            torch.testing.assert_close(after[path].parts[UP], ratio * layer.parts[UP])
            torch.testing.assert_close(after[path].parts[DOWN], layer.parts[DOWN])
    with pytest.raises(UserError, match="possible for lora alone"):
        make_config(network={"network_module": "lycoris.kohya", "network_args": ["algo=loha", "loraplus_lr_ratio=4"]})


def test_max_norm_holds_after_each_step(make_config: MakeConfig) -> None:
    trainer = make_trainer(make_config(optimizer={"learning_rate": 0.5, "scale_weight_norms": 0.05}))
    run_to(trainer, 2)
    for layer in network.read_weights(trainer.components)["unet"].values():
        change = layer.parts[UP].flatten(1) @ layer.parts[DOWN].flatten(1) * layer.alpha / layer.rank
        assert float(change.norm()) <= 0.05 * 1.001


class Share(Alone):
    """One of several workers, whose fellows' gradients do not matter here."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size


def formula(step: int, total: int) -> float:
    """Cosine with two restarts after 3 steps of warmup."""
    if step < 3:
        return step / 3
    return (1 + math.cos(math.pi * (2 * (step - 3) / (total - 3) % 1))) / 2


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_rates_are_the_formula_at_every_step_for_any_number_of_workers(workers: int, make_config: MakeConfig) -> None:
    config = make_config(
        optimizer={
            "learning_rate": 1e-3,
            "lr_scheduler": "cosine_with_restarts",
            "lr_warmup_steps": 3,
            "lr_scheduler_num_cycles": 2,
        },
        training={"max_train_epochs": 4, "train_batch_size": 4 // workers},
    )
    trainer = make_trainer(config, Share(workers))
    reports, _ = run_to(trainer)
    assert trainer.total_steps == len(reports) == 16
    for step, report in enumerate(reports):
        assert report.learning_rate == pytest.approx(1e-3 * formula(step, 16), rel=1e-9, abs=1e-15)


def test_full_bf16_keeps_the_network_in_bf16(make_config: MakeConfig) -> None:
    config = make_config(training={"mixed_precision": "bf16", "full_bf16": True})
    trainer: Trainer = make_trainer(config, dtype=torch.bfloat16)
    reports, _ = run_to(trainer, 2)
    assert all(parameter.dtype == torch.bfloat16 for parameter in trainer.state()["lora"])
    assert all(math.isfinite(report.loss) for report in reports)
    weights = network.read_weights(trainer.components)["unet"].values()
    assert all(layer.parts[DOWN].dtype == torch.float32 for layer in weights)


def test_a_state_with_all_parts_is_read_back_without_code(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(
        optimizer={"optimizer_type": "Prodigy", "lr_scheduler": "cosine"},
        training={"ema": True, "mixed_precision": "fp16"},
    )
    bowl = Bowl()
    update = make_update(config, bowl)
    take(update, bowl, 2)
    torch.save(update.state(), tmp_path / "state.pt")
    read: dict[str, Any] = torch.load(tmp_path / "state.pt", weights_only=True)
    make_update(config, Bowl()).load_state(read)
