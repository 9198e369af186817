"""The TOML: what is accepted, and what is said of what is not."""

from pathlib import Path

import pytest

from onmodel.core.config import validate
from onmodel.core.errors import NotFoundError, UserError
from onmodel.training.config import TrainConfig, load_train_config, to_toml

from .conftest import MakeConfig

EXAMPLES = Path(__file__).parents[2] / "configs" / "training"
MINIMAL = """
[model]
pretrained_model_name_or_path = "toybox"
[training]
max_train_epochs = 1
[data]
train_data_dir = "set"
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return file


def differences(one: TrainConfig, other: TrainConfig) -> set[str]:
    a, b = one.model_dump(), other.model_dump()
    return {key for section in a for key in a[section] if a[section][key] != b[section][key]}


def test_examples_load_and_carry_the_recommended_values() -> None:
    told: list[str] = []
    trial = load_train_config(EXAMPLES / "trial_3_5.toml", say=told.append)
    assert (trial.network.network_dim, trial.network.network_alpha) == (64, 32)
    assert (trial.optimizer.learning_rate, trial.optimizer.lr_scheduler) == (8e-5, "cosine_with_restarts")
    assert trial.optimizer.lr_warmup_steps == 100
    assert (trial.advanced.min_snr_gamma, trial.advanced.noise_offset) == (5.0, 0.05)
    changed = {
        "higher_rank": {"network_dim"},
        "lower_lr": {"learning_rate", "max_train_epochs"},
        "regularized": {
            "optimizer_args", "scale_weight_norms", "caption_dropout_rate", "shuffle_caption", "keep_tokens",
            "caption_tag_dropout_rate", "flip_aug", "ip_noise_gamma",
        },
    }  # fmt: skip
    for name, keys in changed.items():
        variant = load_train_config(EXAMPLES / f"trial_3_6_{name}.toml", say=told.append)
        assert differences(trial, variant) == keys | {"output_name"}
    assert told == []
    assert load_train_config(EXAMPLES / "toybox.toml").model.pretrained_model_name_or_path == "toybox"


def test_resolved_toml_reads_back_equal(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(
        optimizer={"optimizer_args": ["weight_decay=0.1"], "lr_scheduler": "linear", "lr_warmup_steps": 0.1},
        training={"output_name": "träger".replace("ä", "a"), "output_dir": 'odd "dir" \\ ü'},
        data={"resolution": [96, 64]},
    )
    assert load_train_config(written(tmp_path, to_toml(config))) == config


def test_identity_ignores_where_results_go_and_nothing_else(make_config: MakeConfig) -> None:
    config = make_config()
    assert make_config(training={"output_name": "other"}).identity == config.identity
    assert make_config(training={"seed": 1}).identity != config.identity
    assert make_config(advanced={"noise_offset": 0.1}).identity != config.identity


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + "[network]\nnetwork_dimm = 4", "did you mean `network_dim`"),
        (MINIMAL + '[network]\nnetwork_dim = "16"', "network.network_dim"),
        (MINIMAL + "[optimizer]\nlr_scheduler = 'cosin'", "cosine_with_restarts"),
        (MINIMAL + "[optimizer]\nlr_warmup_steps = 1.5", "share of all steps"),
        (MINIMAL + "[optimizer]\noptimizer_args = ['weight_decay']", "name=value"),
        (MINIMAL + "[optimizer]\noptimizer_type = 'AdamWScheduleFee'", "did you mean AdamWScheduleFree?"),
        (MINIMAL + "[optimizer]\nlr_warmup_steps = 10", "constant_with_warmup"),
        (MINIMAL + "[optimizer]\nlr_scheduler = 'piecewise_constant'", "step_rules"),
        (MINIMAL + "[advanced]\nmin_timestep = 500\nmax_timestep = 500", "must lie below"),
        (MINIMAL + "color_aug = true", "`color_aug` cannot be had"),
        (MINIMAL + "lr = 1", "neither OnModel nor sd-scripts has it"),
        (MINIMAL + "dataset_config = 'x.toml'", "one of the two"),
        (MINIMAL + "conditioning_data_dir = 'masks'", "masked_loss"),
        ("seed = 1\n" + MINIMAL + "seed = 2", "`seed` is 1 before any table and 2 in [data]"),
        (MINIMAL + "full_bf16 = true", "mixed_precision"),
        (MINIMAL + "resolution = 100", "multiple of 8"),
        (MINIMAL.replace("max_train_epochs = 1", ""), "max_train_epochs"),
        (MINIMAL.replace('pretrained_model_name_or_path = "toybox"', ""), "model.pretrained_model_name_or_path"),
        (MINIMAL + "[[netwrok]]\nnetwork_dim = 4", "did you mean `network`"),
        ("[model", "not valid TOML"),
    ],
)
def test_wrong_configs_are_refused_with_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        load_train_config(written(tmp_path, text))
    assert said in str(error.value)
    assert "config.toml" in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere\.toml"):
        load_train_config(tmp_path / "nowhere.toml")


def test_changes_are_validated(make_config: MakeConfig) -> None:
    assert make_config().with_changes(training={"max_train_epochs": 9}).training.max_train_epochs == 9
    with pytest.raises(UserError, match="max_train_epochs"):
        make_config().with_changes(training={"max_train_epochs": 0})


def test_sections_refuse_unknown_keys_in_code_too() -> None:
    with pytest.raises(UserError, match="unknown key"):
        validate(TrainConfig, {"model": {"pretrained_model_name_or_path": "x"}, "extra": 1}, "here")
