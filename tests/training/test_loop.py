"""The loop: golden first steps, exact resuming, several workers like one."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from onmodel.core.errors import UserError
from onmodel.core.files import file_hash
from onmodel.training import network
from onmodel.training.buckets import plan_epoch, seeded
from onmodel.training.config import TrainConfig
from onmodel.training.data import prepare
from onmodel.training.families import StableDiffusion
from onmodel.training.job import TrainingPicture
from onmodel.training.loop import Alone, StepReport, Trainer, Workers
from onmodel.training.naming import SdNaming
from onmodel.training.network_spec import NetworkSpec
from onmodel.training.pipeline import load_pipeline
from onmodel.training.store import ArrayCache
from onmodel.training.weights import UP

from .conftest import MakeConfig
from .running import run_to

CPU = torch.device("cpu")


def make_trainer(
    config: TrainConfig,
    workers: Workers | None = None,
    dtype: torch.dtype = torch.float32,
    variants: tuple[str, ...] = (),
) -> Trainer:
    pipeline = load_pipeline(config.model.pretrained_model_name_or_path, dtype=dtype)
    family = StableDiffusion(pipeline, config.model.v_parameterization)
    files = sorted(config.data.source.rglob("*.png"))
    pictures = [TrainingPicture(f, f.with_suffix(".txt").read_text(), 2, file_hash(f), None, variants) for f in files]
    cached = config.network.network_train_unet_only
    data = prepare(pictures, family, config.data, ArrayCache(None), encode_captions=cached)
    return Trainer(config, family, data, workers or Alone(), CPU)


def test_each_showing_draws_one_of_several_captions(make_config: MakeConfig) -> None:
    """The same ones again in another run; and where there is one caption all is as if there were no others."""
    config = make_config(training={"seed": 5, "max_train_steps": 4})

    def losses(variants: tuple[str, ...]) -> list[float]:
        trainer = make_trainer(config, variants=variants)
        return [report.loss for report in run_to(trainer)[0]]

    alone = losses(())
    several = losses(("zork, far away", "zork, in a park"))
    assert several == losses(("zork, far away", "zork, in a park"))
    assert several != alone


def weights(trainer: Trainer) -> list[Tensor]:
    return trainer.state()["lora"]


@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize("gamma", [None, 5.0])
def test_first_step_equals_a_derivation_of_its_own(
    kind: str, gamma: float | None, make_config: MakeConfig, tiny_pipeline: Path, tiny_v_pipeline: Path
) -> None:
    base = {"epsilon": tiny_pipeline, "v": tiny_v_pipeline}[kind]
    advanced: dict[str, Any] = {"noise_offset": 0.05} | ({"min_snr_gamma": gamma} if gamma else {})
    config = make_config(
        model={"pretrained_model_name_or_path": str(base)},
        advanced=advanced,
        training={"seed": 11, "max_train_steps": 1},
    )
    trainer = make_trainer(config)
    reports, _ = run_to(trainer, 1)

    pipeline: Any = load_pipeline(str(base))
    again = make_trainer(config)
    network.attach({"unet": pipeline.unet}, NetworkSpec(dim=4, alpha=2.0), SdNaming(), seed=11)
    data = again._data  # pyright: ignore[reportPrivateUsage]
    chosen = plan_epoch(data.buckets, data.repeats, 2, 11, 0)[0].pictures
    generator = seeded(11, 0, 2)
    x = torch.stack([data.latents[index] for index in chosen]).double()
    noise = torch.randn(x.shape, generator=generator)
    noise = (noise + 0.05 * torch.randn(len(x), 4, 1, 1, generator=generator)).double()
    steps = torch.randint(1000, (len(x),), generator=generator)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)[steps].view(-1, 1, 1, 1)
    noisy = abar.sqrt() * x + (1 - abar).sqrt() * noise
    text = torch.stack([data.conditioning[data.pictures[index].caption] for index in chosen])
    output = pipeline.unet(noisy.float(), steps, text).sample
    wanted = noise if kind == "epsilon" else abar.sqrt() * noise - (1 - abar).sqrt() * x
    snr = (abar / (1 - abar)).flatten()
    weight = torch.ones_like(snr)
    if gamma is not None:
        weight = torch.minimum(snr, torch.tensor(gamma).double()) / (snr if kind == "epsilon" else snr + 1)
    value = (weight * ((output.double() - wanted) ** 2).flatten(1).mean(1)).mean()
    value.backward()
    norm = torch.stack([p.grad.norm() for p in network.parameters(pipeline.unet) if p.grad is not None]).norm()

    assert reports[0].loss == pytest.approx(value.item(), rel=1e-5)
    assert reports[0].grad_norm == pytest.approx(norm.item(), rel=1e-4)


@pytest.mark.parametrize("stop_after", [1, 4, 6, 9])
def test_a_resumed_run_is_bit_for_bit_the_run_that_never_stopped(
    stop_after: int, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(
        optimizer={"lr_scheduler": "cosine_with_restarts", "lr_warmup_steps": 2, "lr_scheduler_num_cycles": 2},
        data={"caption_dropout_rate": 0.3},
        advanced={"noise_offset": 0.1, "min_snr_gamma": 5.0},
    )
    whole = make_trainer(config)
    reports, _ = run_to(whole)
    assert len(reports) == whole.total_steps == 12
    stopped = make_trainer(config)
    _, state = run_to(stopped, stop_after)
    torch.save(state, tmp_path / "state.pt")
    resumed = make_trainer(config)
    resumed.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    rest, _ = run_to(resumed)
    assert [report.loss for report in rest] == [report.loss for report in reports[stop_after:]]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


class Together:
    """Two workers that are threads of this process."""

    def __init__(self, rank: int, shared: "Shared") -> None:
        self.rank, self.world_size, self._shared = rank, 2, shared

    def sum(self, tensor: Tensor) -> Tensor:
        self._shared.parts[self.rank] = tensor
        self._shared.gate.wait()
        summed = self._shared.parts[0] + self._shared.parts[1]
        self._shared.gate.wait()
        return summed

    def barrier(self) -> None:
        self._shared.gate.wait()


class Shared:
    def __init__(self) -> None:
        self.parts: dict[int, Tensor] = {}
        self.gate = threading.Barrier(2, timeout=120)


def test_two_workers_with_half_the_batch_give_the_weights_of_one(make_config: MakeConfig) -> None:
    one = make_trainer(make_config(training={"train_batch_size": 4}))
    alone, _ = run_to(one)
    shared = Shared()
    half = make_config(training={"train_batch_size": 2})
    pair = [make_trainer(half, Together(rank, shared)) for rank in range(2)]
    reports: dict[int, list[StepReport]] = {}

    def work(rank: int) -> None:
        reports[rank] = run_to(pair[rank])[0]

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.learning_rate for r in reports[0]] == [r.learning_rate for r in alone]
    assert [r.loss for r in reports[0]] == pytest.approx([r.loss for r in alone], rel=1e-4)
    for mine, first, second in zip(weights(one), weights(pair[0]), weights(pair[1]), strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(mine, first, atol=2e-4, rtol=1e-3)


def test_accumulated_batches_equal_one_batch_of_their_size(make_config: MakeConfig, tiny_dataset: Path) -> None:
    one_bucket = {"enable_bucket": False}
    whole = make_trainer(make_config(training={"train_batch_size": 6}, data=one_bucket))
    parts = make_trainer(
        make_config(training={"train_batch_size": 3, "gradient_accumulation_steps": 2}, data=one_bucket)
    )
    assert whole.total_steps == parts.total_steps == 4
    assert run_to(whole)[0][0].pictures == run_to(parts)[0][0].pictures == 6


def test_steps_go_before_epochs_only_when_there_are_no_epochs(make_config: MakeConfig) -> None:
    trainer = make_trainer(make_config(training={"max_train_steps": 5}))
    assert trainer.total_steps == 12
    value = make_config().model_dump(exclude_none=True)
    del value["training"]["max_train_epochs"]
    value["training"]["max_train_steps"] = 8
    ends: list[int] = []
    short = make_trainer(TrainConfig.model_validate(value))
    short.run(lambda report: None, ends.append)
    assert short.step == 8
    assert ends == [1, 2]


def test_training_lowers_the_loss_and_leaves_the_base_alone(make_config: MakeConfig) -> None:
    trainer = make_trainer(make_config(training={"max_train_epochs": 12}))
    before = [p.clone() for p in trainer.components["unet"].parameters() if not p.requires_grad]
    reports, _ = run_to(trainer)
    after = [p for p in trainer.components["unet"].parameters() if not p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    losses = [report.loss for report in reports]
    assert sum(losses[-12:]) < sum(losses[:12])


def test_text_encoder_is_trained_at_its_own_rate(make_config: MakeConfig) -> None:
    config = make_config(network={"network_train_unet_only": False}, optimizer={"text_encoder_lr": 0.0})
    frozen = make_trainer(config)
    run_to(frozen, 2)
    assert not any(layer.parts[UP].any() for layer in network.read_weights(frozen.components)["text_encoder"].values())
    trained = make_trainer(config.with_changes(optimizer={"text_encoder_lr": 1e-3}))
    run_to(trained, 2)
    assert all(layer.parts[UP].any() for layer in network.read_weights(trained.components)["text_encoder"].values())


def test_gradient_checkpointing_changes_nothing_but_memory(make_config: MakeConfig) -> None:
    plain = run_to(make_trainer(make_config()), 2)[0]
    saving = run_to(make_trainer(make_config(advanced={"gradient_checkpointing": True})), 2)[0]
    assert [r.loss for r in saving] == pytest.approx([r.loss for r in plain], rel=1e-5)


def test_bf16_trains_float32_weights_near_the_float32_run(make_config: MakeConfig) -> None:
    plain = run_to(make_trainer(make_config()), 3)[0]
    half = make_trainer(make_config(training={"mixed_precision": "bf16"}), dtype=torch.bfloat16)
    reports = run_to(half, 3)[0]
    assert [r.loss for r in reports] == pytest.approx([r.loss for r in plain], rel=0.05)
    assert all(weight.dtype == torch.float32 for weight in weights(half))


def test_a_loss_that_is_not_finite_names_step_and_pictures(make_config: MakeConfig) -> None:
    trainer = make_trainer(make_config())
    run_to(trainer, 2)
    with torch.no_grad():
        network.parameters(trainer.components["unet"])[0].fill_(float("nan"))
    with pytest.raises(UserError, match=r"nan at step 3 \(epoch 1\).*\.png"):
        run_to(trainer)
