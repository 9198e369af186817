"""`ONMODEL_SERVICES` names running services to every verb that looks at pictures."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from onmodel.ablation.config import EvaluationSection, load_ablation
from onmodel.ablation.variants import make_ablation
from onmodel.cli.ablate import _evaluating  # pyright: ignore[reportPrivateUsage]
from onmodel.cli.main import VERBS, load_verb
from onmodel.cli.measuring import SERVICES_VARIABLE
from onmodel.core.errors import ServiceError
from onmodel.serving.private_ray import free_port
from onmodel.toybox.character import HELD_OUT
from onmodel.toybox.dataset import TRIAL_SHARES, make_dataset

LOOKING = {
    *("analyze", "augment", "caption", "cluster", "compare", "curate"),
    *("diagnose", "evaluate", "extract", "improve", "merge"),
}


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address where nobody listens, named to all verbs."""
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv(SERVICES_VARIABLE, address)
    return address


def test_every_verb_that_looks_reads_it() -> None:
    read = {
        name
        for name in VERBS
        for option in getattr(load_verb(name), "params", ())
        if option.name == "services" and option.envvar == SERVICES_VARIABLE
    }
    assert read == LOOKING


def test_a_verb_goes_there(nobody: str, tmp_path: Path) -> None:
    make_dataset(tmp_path / "set", HELD_OUT["zibo"], 4, TRIAL_SHARES, seed=3, size=64, trigger="zibo")
    with pytest.raises(ServiceError, match=nobody):
        load_verb("analyze").main([str(tmp_path / "set")], standalone_mode=False)


def test_an_ablation_goes_there_unless_its_file_says_where(nobody: str, tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        '[model]\npretrained_model_name_or_path = "toybox"\n[training]\noutput_dir = "runs"\noutput_name = "toy"\n'
        'max_train_steps = 2\n[data]\ntrain_data_dir = "set"\n'
    )
    file = tmp_path / "ablation.toml"
    file.write_text(
        'base = "base.toml"\n[ablation]\nname = "test"\ninclude_base = true\n'
        '[[variant]]\nname = "other"\n[variant.network]\nnetwork_dim = 4\n'
    )
    plan = make_ablation(file, load_ablation(file))
    elsewhere = f"127.0.0.1:{free_port()}"
    for services, asked in ((None, nobody), (elsewhere, elsewhere)):
        section = EvaluationSection(test_suite="toybox", services=services)
        with pytest.raises(ServiceError, match=asked), ExitStack() as stack:
            _evaluating(stack, plan, section)
