"""Config files as sd-scripts' users have them: read as they are, with one sentence about what changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onmodel.core.errors import UserError
from onmodel.training import sdscripts_keys
from onmodel.training.config import TrainConfig, load_train_config, to_toml
from onmodel.training.sources import SubsetOptions

from .conftest import MakeConfig

FROM_A_USER_INTERFACE = """
bucket_no_upscale = true
bucket_reso_steps = 64
cache_latents = true
cache_latents_to_disk = true
caption_dropout_every_n_epochs = 0
caption_extension = ".txt"
clip_skip = 1
dynamo_backend = "no"
enable_bucket = true
epoch = 10
gradient_accumulation_steps = 1
gradient_checkpointing = true
huber_c = 0.1
huber_scale = 1
huber_schedule = "snr"
ip_noise_gamma = 0
keep_tokens = 1
learning_rate = 0.0001
loss_type = "l2"
lr_scheduler = "cosine"
lr_scheduler_args = []
lr_scheduler_num_cycles = 1
lr_scheduler_power = 1
lr_warmup_steps = 0.1
max_bucket_reso = 2048
max_data_loader_n_workers = 0
max_grad_norm = 1
max_timestep = 1000
min_bucket_reso = 256
min_snr_gamma = 5
mixed_precision = "fp16"
multires_noise_discount = 0.3
multires_noise_iterations = 0
network_alpha = 16
network_args = []
network_dim = 32
network_module = "networks.lora"
noise_offset = 0
noise_offset_type = "Original"
optimizer_args = ["weight_decay=0.1", "betas=0.9,0.99"]
optimizer_type = "AdamW8bit"
output_dir = "/tmp/model"
output_name = "my_lora"
pretrained_model_name_or_path = "base.safetensors"
prior_loss_weight = 1
resolution = "512,512"
save_model_as = "safetensors"
save_precision = "fp16"
seed = 42
shuffle_caption = true
text_encoder_lr = 5e-5
train_batch_size = 2
train_data_dir = "/tmp/img"
unet_lr = 0.0001
v2 = false
vae_batch_size = 4
xformers = true
"""

IN_SECTIONS_OF_ITS_OWN = """
[model_arguments]
v2 = false
v_parameterization = true
pretrained_model_name_or_path = "some/model"
[additional_network_arguments]
unet_lr = 1.0
text_encoder_lr = 1.0
network_dim = 8
network_alpha = 1
network_train_unet_only = false
[optimizer_arguments]
learning_rate = 1.0
optimizer_type = "prodigy"
optimizer_args = [ "decouple=True", "weight_decay=0.01", "d_coef=2", "use_bias_correction=True" ]
lr_scheduler = "constant"
[dataset_arguments]
dataset_config = "sets/dataset.toml"
[training_arguments]
max_train_epochs = 10
scale_v_pred_loss_like_noise_pred = true
zero_terminal_snr = true
max_token_length = 225
weighted_captions = false
lowram = true
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return file


def without(text: str, *keys: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.split(" = ")[0] not in keys)


def test_a_flat_file_is_read_and_idle_keys_are_said_once(tmp_path: Path) -> None:
    told: list[str] = []
    # Keys that both have and whose owner is another part of the config.
    file = written(tmp_path, without(FROM_A_USER_INTERFACE, "network_args"))
    config = load_train_config(file, say=told.append)
    assert config.training.max_train_epochs == 10
    assert config.data.size == (512, 512)
    assert config.optimizer.optimizer_type == "AdamW8bit"
    assert (config.advanced.min_snr_gamma, config.advanced.loss_type) == (5, "l2")
    assert config.training.mixed_precision == "fp16"
    assert len(told) == 1
    named = {part.split("`")[1] for part in told[0].split("here: ")[1].split("; ")}
    assert named == {
        "bucket_no_upscale", "cache_latents", "noise_offset_type", "save_model_as", "save_precision", "xformers",
    }  # fmt: skip
    assert load_train_config(written(tmp_path, to_toml(config)), say=told.append) == config
    assert len(told) == 1, "what the run writes down has no key without effect"


def test_sections_of_other_names_are_read(tmp_path: Path) -> None:
    told: list[str] = []
    config = load_train_config(written(tmp_path, IN_SECTIONS_OF_ITS_OWN), say=told.append)
    assert config.model.v_parameterization is True
    assert config.model.zero_terminal_snr
    assert config.optimizer.optimizer_type == "Prodigy"
    assert config.data.dataset_config == "sets/dataset.toml"
    assert "`lowram`" in told[0]
    assert "weighted_captions" not in told[0], "it asks for nothing"
    assert config.model.windows == 3


def test_settings_that_others_leave_idle_are_said(tmp_path: Path) -> None:
    told: list[str] = []
    text = """
    pretrained_model_name_or_path = "x"
    train_data_dir = "y"
    max_train_steps = 10
    optimizer_type = "AdamWScheduleFree"
    lr_scheduler = "cosine"
    huber_c = 0.2
    prior_loss_weight = 0.5
    ema_decay = 0.9
    """
    load_train_config(written(tmp_path, text), say=told.append)
    for key in ("lr_scheduler", "huber_c", "prior_loss_weight", "ema_decay"):
        assert f"`{key}` (" in told[0]


def known_arguments() -> dict[str, list[str]]:
    """The list of sd-scripts' own keys, by what they are of."""
    lines = (Path(__file__).parent / "sdscripts_arguments.txt").read_text().splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("["):
            found[line[1:-1]] = []
        elif not line.startswith("#"):
            found[next(reversed(found))].append(line)
    return found


def test_every_key_of_sd_scripts_is_taken_or_has_a_sentence() -> None:
    known = known_arguments()
    assert len(known["arguments"]) > 200
    others = {*sdscripts_keys.NO_EFFECT, *sdscripts_keys.REFUSED, *sdscripts_keys.RENAMED}
    ours = {key for section in TrainConfig.model_fields.values() for key in _keys(section.annotation)}
    assert [key for key in known["arguments"] if key not in ours | others] == []
    assert [key for key in known["dataset"] if key not in {*SubsetOptions.model_fields} | others] == []
    assert all({**sdscripts_keys.NO_EFFECT, **sdscripts_keys.REFUSED}.values())


def test_no_key_has_two_meanings() -> None:
    ours = {key for section in TrainConfig.model_fields.values() for key in _keys(section.annotation)}
    tables = [set(sdscripts_keys.NO_EFFECT), set(sdscripts_keys.REFUSED), set(sdscripts_keys.RENAMED), ours]
    for index, table in enumerate(tables):
        for other in tables[index + 1 :]:
            assert not table & other
    assert set(sdscripts_keys.RENAMED.values()) <= ours


def _keys(annotation: Any) -> set[str]:
    return set(getattr(annotation, "model_fields", {}))


@pytest.mark.parametrize("key", sorted(sdscripts_keys.REFUSED))
def test_what_cannot_be_had_is_refused_with_a_way_out(key: str, tmp_path: Path) -> None:
    base = 'pretrained_model_name_or_path = "x"\ntrain_data_dir = "y"\nmax_train_steps = 1\n'
    with pytest.raises(UserError, match=f"`{key}` cannot be had: .+; remove it"):
        load_train_config(written(tmp_path, f'{base}{key} = "something"\n'))
    load_train_config(written(tmp_path, f"{base}{key} = false\n"), say=pytest.fail)


VALUES: dict[tuple[str, str], Any] = {
    ("optimizer", "learning_rate"): st.floats(1e-9, 10),
    ("optimizer", "lr_scheduler_power"): st.floats(1e-3, 10),
    ("optimizer", "optimizer_type"): st.sampled_from(["adamw", "LION", "Prodigy", "torch.optim.SGD"]),
    ("optimizer", "optimizer_args"): st.lists(st.sampled_from(["weight_decay=0.1", "betas=(0.9, 0.99)"])),
    ("training", "seed"): st.integers(0, 2**63 - 1),
    ("training", "output_dir"): st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    ("training", "ema"): st.booleans(),
    ("data", "keep_tokens_separator"): st.text("|&;ü\"'\\", min_size=1, max_size=3),
    ("data", "caption_prefix"): st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    ("data", "resolution"): st.sampled_from([64, [64, 96], 512]),
    ("advanced", "loss_type"): st.sampled_from(["l2", "l1", "huber", "smooth_l1"]),
    ("advanced", "max_timestep"): st.integers(1, 1000),
    ("advanced", "noise_offset"): st.floats(0, 1),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.fixed_dictionaries({}, optional=VALUES))
def test_every_config_reads_back_equal(
    values: dict[tuple[str, str], Any], make_config: MakeConfig, tmp_path: Path
) -> None:
    changes: dict[str, dict[str, Any]] = {}
    for (section, key), value in values.items():
        changes.setdefault(section, {})[key] = value
    config = make_config(**changes)
    again = load_train_config(written(tmp_path, to_toml(config)), say=lambda text: None)
    assert again == config
    assert again.identity == config.identity
    flat = "\n".join(line for line in to_toml(config).splitlines() if not line.startswith("["))
    assert load_train_config(written(tmp_path, flat), say=lambda text: None) == config
    assert json.loads(config.model_dump_json()) == json.loads(again.model_dump_json())
