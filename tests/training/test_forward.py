"""The compiled forward pass trains what the plain one trains, for every shape of a batch; and what a step costs."""

import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.profiler import ProfilerActivity, profile

from onmodel.training import forward, network
from onmodel.training.buckets import Batch
from onmodel.training.loop import StepReport, Trainer

from .conftest import MakeConfig
from .running import run_to
from .test_loop import make_trainer, weights
from .test_stages import staged

STAGES: list[dict[str, Any]] = [
    {"name": "a", "epochs": 1, "noise_offset": 0.1, "min_snr_gamma": 5.0},
    {"name": "b", "steps": 1, "loss_type": "huber", "ip_noise_gamma": 0.1, "learning_rate": 1e-3},
]


# It says so of a function that diffusers caches: nothing depends on whether it is called again.
pytestmark = pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    torch.compiler.reset()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """Counts the graphs that are compiled, and runs each as it stands, in place of inductor; a break is an error."""
    counter = CompileCounter()
    original = torch.compile

    def counting(function: Any, **options: Any) -> Any:
        assert options == {"backend": "inductor", "mode": None, "dynamic": False}
        return original(function, backend=counter, dynamic=False, fullgraph=True)

    monkeypatch.setattr(forward.torch, "compile", counting)
    return counter


def near(trainer: Trainer, reports: list[StepReport], plain: Trainer, expected: list[StepReport]) -> None:
    assert [r.loss for r in reports] == pytest.approx([r.loss for r in expected], rel=1e-4)
    assert [r.grad_norm for r in reports] == pytest.approx([r.grad_norm for r in expected], rel=1e-3)
    for mine, other in zip(weights(trainer), weights(plain), strict=True):
        torch.testing.assert_close(mine, other, atol=2e-4, rtol=1e-3)


def shapes(trainer: Trainer) -> set[tuple[int, tuple[int, int], int]]:
    """Stage, bucket and size of each batch."""
    buckets = trainer._data.buckets  # pyright: ignore[reportPrivateUsage]
    return {
        (plan.index, buckets[batch.pictures[0]], len(batch.pictures))
        for plan in trainer.stages
        for start, end, epoch in zip((plan.first_step, *plan.ends), plan.ends, itertools.count(plan.first_epoch))
        for group in plan.groups(epoch)[: end - start]
        for batch in group
    }


def test_stages_and_buckets_are_a_graph_each_and_train_the_same(
    make_config: MakeConfig, counted: CompileCounter
) -> None:
    plain = make_trainer(staged(make_config(), STAGES))
    expected, _ = run_to(plain)
    assert counted.frame_count == 0, "nothing is compiled unasked"
    trainer = make_trainer(staged(make_config(advanced={"torch_compile": True}), STAGES))
    reports, _ = run_to(trainer)
    near(trainer, reports, plain, expected)
    assert len({size for _, size, _ in shapes(trainer)}) == 2
    assert counted.frame_count == len(shapes(trainer))


def test_checkpointing_and_a_trained_text_encoder_compile_too(make_config: MakeConfig, counted: CompileCounter) -> None:
    def run(**advanced: Any) -> tuple[Trainer, list[StepReport]]:
        config = make_config(
            network={"network_train_unet_only": False},
            data={"enable_bucket": False},
            advanced={"gradient_checkpointing": True, **advanced},
        )
        trainer = make_trainer(config)
        return trainer, run_to(trainer, 2)[0]

    near(*run(torch_compile=True), *run())
    assert counted.frame_count == 1
    assert run(torch_compile=True, dynamo_backend="no")[1]
    assert counted.frame_count == 1


def test_backward_is_compiled_with_the_forward_pass(make_config: MakeConfig) -> None:
    one_shape = {"enable_bucket": False}
    plain = make_trainer(make_config(data=one_shape))
    expected, _ = run_to(plain, 3)
    trainer = make_trainer(make_config(data=one_shape, advanced={"torch_compile": True, "dynamo_backend": "aot_eager"}))
    reports, _ = run_to(trainer, 3)
    near(trainer, reports, plain, expected)


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


def test_a_step_waits_for_its_device_once_and_loops_over_no_parameters(make_config: MakeConfig) -> None:
    # AdamW reads its step counts one by one, on the CPU alone.
    changes = {"optimizer_type": "SGD", "scale_weight_norms": 1.0}
    trainer = make_trainer(make_config(data={"enable_bucket": False}, training={"ema": True}, optimizer=changes))
    found = operations(trainer, 2)
    assert found["aten::_local_scalar_dense"] <= 4, "two numbers of the step, and what is drawn for it on the CPU"
    assert len(trainer.state()["lora"]) > 40
    assert found["aten::_foreach_norm"] == 1
    assert found["aten::_foreach_mul_"] >= 1


def test_layers_cast_nothing_that_autocast_casts_anyway(make_config: MakeConfig) -> None:
    half = {"mixed_precision": "bf16"}
    trainer = make_trainer(make_config(data={"enable_bucket": False}, training=half), dtype=torch.bfloat16)
    sparing = operations(trainer, 2)["aten::_to_copy"]
    network.cast_inputs(trainer.components, True)
    assert operations(trainer, 2)["aten::_to_copy"] > sparing + 20
    unet: Any = trainer.components["unet"]
    noisy, text = (torch.randn(1, *size, dtype=torch.bfloat16) for size in ((4, 8, 8), (16, 32)))
    network.cast_inputs(trainer.components, False)
    with trainer.evaluating(), torch.no_grad():
        assert unet(noisy, torch.tensor([1]), text).sample.dtype == torch.bfloat16, "as pictures are drawn"
    with pytest.raises(RuntimeError), torch.no_grad():
        unet(noisy, torch.tensor([1]), text)
