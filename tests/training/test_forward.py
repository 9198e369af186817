"""The compiled forward pass trains what the plain one trains, for every shape of a batch; and what a step costs."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.profiler import ProfilerActivity, profile

from onmodel.training import forward
from onmodel.training.buckets import Batch
from onmodel.training.loop import Trainer

from .conftest import MakeConfig
from .running import run_to
from .test_loop import make_trainer, weights
from .test_stages import staged

STAGES: list[dict[str, Any]] = [
    {"name": "a", "steps": 4, "noise_offset": 0.1, "min_snr_gamma": 5.0},
    {"name": "b", "steps": 3, "loss_type": "huber", "ip_noise_gamma": 0.1, "learning_rate": 1e-3},
]


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    torch.compiler.reset()


def compiled(make_config: MakeConfig, **advanced: Any) -> Trainer:
    return make_trainer(staged(make_config(advanced={"torch_compile": True, **advanced}), STAGES))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_stages_over_several_buckets_train_the_same(make_config: MakeConfig, checkpointing: bool) -> None:
    keys = {"gradient_checkpointing": checkpointing}
    plain = make_trainer(staged(make_config(advanced=keys), STAGES))
    expected, _ = run_to(plain)
    trainer = compiled(make_config, dynamo_backend="aot_eager", **keys)
    data = trainer._data  # pyright: ignore[reportPrivateUsage]
    assert len(set(data.buckets)) == 2
    reports, _ = run_to(trainer)
    assert [r.loss for r in reports] == pytest.approx([r.loss for r in expected], rel=1e-4)
    assert [r.grad_norm for r in reports] == pytest.approx([r.grad_norm for r in expected], rel=1e-3)
    for mine, other in zip(weights(trainer), weights(plain), strict=True):
        torch.testing.assert_close(mine, other, atol=2e-4, rtol=1e-3)


def test_each_shape_is_one_graph_compiled_once_and_none_without_being_asked(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = CompileCounter()
    original = torch.compile

    def counting(function: Any, **options: Any) -> Any:
        assert options.pop("backend") == "inductor"
        assert options == {"mode": None, "dynamic": False}
        return original(function, backend=counted, dynamic=False, fullgraph=True)

    monkeypatch.setattr(forward.torch, "compile", counting)
    run_to(make_trainer(make_config()))
    assert counted.frame_count == 0
    trainer = make_trainer(make_config(advanced={"torch_compile": True}))
    reports, _ = run_to(trainer)
    groups = [group for epoch in range(2) for group in trainer.stages[0].groups(epoch)]
    data = trainer._data  # pyright: ignore[reportPrivateUsage]
    shapes = {(data.buckets[batch.pictures[0]], len(batch.pictures)) for group in groups for batch in group}
    assert counted.frame_count == len(shapes) > 1
    assert len(reports) == 12


def test_gradients_are_taken_out_of_a_recorded_graph(make_config: MakeConfig) -> None:
    """On a GPU the memory of a graph's results is written over by its next replay; here, by hand."""
    changes = {"train_batch_size": 3, "gradient_accumulation_steps": 2}
    config = make_config(training=changes, data={"enable_bucket": False})
    plain = make_trainer(config)
    expected, _ = run_to(plain)
    trainer = make_trainer(config)
    trainer._forward.records = True  # pyright: ignore[reportPrivateUsage]
    trainer._enter(trainer.stages[0])  # pyright: ignore[reportPrivateUsage]
    backward = trainer.update.backward
    given: list[int] = []

    def graphed(loss: torch.Tensor) -> None:
        backward(loss)
        given.extend(p.grad.data_ptr() for p in trainer.update._parameters if p.grad is not None)  # pyright: ignore[reportPrivateUsage]

    trainer.update.backward = graphed
    reports, _ = run_to(trainer)
    kept = {tensor.data_ptr() for tensor in trainer.update._kept}  # pyright: ignore[reportPrivateUsage]
    assert set(given) <= kept
    assert [r.loss for r in reports] == [r.loss for r in expected]
    assert all(torch.equal(mine, other) for mine, other in zip(weights(trainer), weights(plain), strict=True))


def operations(trainer: Trainer, count: int) -> Counter[str]:
    """What one optimizer step over the first `count` pictures calls of PyTorch, by name."""
    group = [Batch(tuple(range(count)))]
    step = trainer._train_step  # pyright: ignore[reportPrivateUsage]
    step(group, 0)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step(group, 0)
    events: Any = recorded.key_averages()
    return Counter({event.key: event.count for event in events})


def test_a_step_waits_for_its_device_once(make_config: MakeConfig) -> None:
    trainer = make_trainer(make_config(data={"enable_bucket": False}, training={"ema": True}))
    found = operations(trainer, 2)
    # Numbers read on the CPU alone, while the batch is drawn, are not counted here: they are made there.
    assert found["aten::_local_scalar_dense"] <= 4
    parameters = len(trainer.state()["lora"])
    assert parameters > 20
    for name in ("aten::_fused_adamw_", "aten::lerp_", "aten::norm", "aten::linalg_vector_norm"):
        assert found[name] < parameters / 4, f"{name} is called for each parameter"
