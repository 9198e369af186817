"""An sd-scripts training TOML brought into our sections, and what is known of the keys that we lack.

sd-scripts lays all tables of its config file over one another and takes each key from wherever it stands
(`read_config_from_file` of its `train_util.py`), so a key's place says nothing; it goes into the section that knows it.
"""

import difflib
from typing import Any

from pydantic import BaseModel

from onmodel.core.errors import UserError

RENAMED = {
    "caption_extention": "caption_extension",
    "training_shift": "discrete_flow_shift",
    "epoch": "max_train_epochs",
}
"""Other spellings that sd-scripts or its user interfaces write."""

_PROCESSES = "how processes share memory and data is decided here"
_MEMORY = "memory is saved by gradient_checkpointing and bf16 here"
_ATTENTION = "PyTorch's attention is always used"
_FORMAT = "checkpoints are float32 safetensors with metadata"
_UPLOAD = "nothing is uploaded"
_CACHED = "latents and captions are always cached, in memory and on disk"
_MODEL = "the base model says it"
_TITLE = "ModelSpec is filled in from the config"
_FULL_FINE_TUNING = "for training whole models"
_DEEPSPEED = "workers are Ray Train's here; use --num-workers"

NO_EFFECT: dict[str, str] = {
    "v2": _MODEL,
    "model_type": _MODEL,
    "no_half_vae": "the autoencoder is kept in the precision of the model",
    "tokenizer_cache_dir": "the tokenizer comes with the base model",
    "disable_mmap_load_safetensors": _PROCESSES,
    "lowram": _MEMORY,
    "highvram": _MEMORY,
    "mem_eff_attn": _ATTENTION,
    "xformers": _ATTENTION,
    "sdpa": _ATTENTION,
    "attn_mode": _ATTENTION,
    "split_attn": _ATTENTION,
    "ddp_timeout": _PROCESSES,
    "ddp_gradient_as_bucket_view": _PROCESSES,
    "ddp_static_graph": _PROCESSES,
    "max_data_loader_n_workers": _PROCESSES,
    "persistent_data_loader_workers": _PROCESSES,
    "num_cpu_threads_per_process": _PROCESSES,
    "blocks_to_swap": _MEMORY,
    "split_mode": _MEMORY,
    "cpu_offload_checkpointing": _MEMORY,
    "fused_backward_pass": _MEMORY,
    "fp8_base": _MEMORY,
    "fp8_base_unet": _MEMORY,
    "cache_latents": _CACHED,
    "cache_text_encoder_outputs": _CACHED,
    "cache_text_encoder_outputs_to_disk": _CACHED,
    "text_encoder_batch_size": _CACHED,
    "skip_cache_check": _CACHED,
    "cache_info": _CACHED,
    "debug_dataset": "for looking at a dataset; `onmodel analyze` does",
    "dataset_class": "datasets are read by their folders",
    "bucket_no_upscale": "pictures are always brought to the area of `resolution`",
    "resize_interpolation": "pictures are always resized bicubically",
    "save_model_as": _FORMAT,
    "save_precision": _FORMAT,
    "no_metadata": _FORMAT,
    "use_safetensors": _FORMAT,
    "huggingface_repo_id": _UPLOAD,
    "huggingface_repo_type": _UPLOAD,
    "huggingface_path_in_repo": _UPLOAD,
    "huggingface_token": _UPLOAD,
    "huggingface_repo_visibility": _UPLOAD,
    "save_state_to_huggingface": _UPLOAD,
    "resume_from_huggingface": _UPLOAD,
    "async_upload": _UPLOAD,
    "training_comment": "not written anywhere",
    "metadata_title": _TITLE,
    "metadata_author": _TITLE,
    "metadata_description": _TITLE,
    "metadata_license": _TITLE,
    "metadata_tags": _TITLE,
    "metadata_usage_hint": _TITLE,
    "metadata_thumbnail": _TITLE,
    "metadata_merged_from": _TITLE,
    "metadata_trigger_phrase": _TITLE,
    "metadata_preprocessor": _TITLE,
    "metadata_is_negative_embedding": _TITLE,
    "config_file": "this is the file",
    "output_config": "the resolved config is always written into the trial's folder",
    "console_log_level": "messages go to standard error",
    "console_log_file": "messages go to standard error",
    "console_log_simple": "messages go to standard error",
    "wandb_api_key": "the tracker reads it from the environment",
    "learning_rate_te": _FULL_FINE_TUNING,
    "learning_rate_te1": _FULL_FINE_TUNING,
    "learning_rate_te2": _FULL_FINE_TUNING,
    "train_text_encoder": _FULL_FINE_TUNING,
    "stop_text_encoder_training": _FULL_FINE_TUNING,
    "diffusers_xformers": _ATTENTION,
    "save_clip": _FULL_FINE_TUNING,
    "save_t5xxl": _FULL_FINE_TUNING,
    "pos_emb_random_crop_rate": _FULL_FINE_TUNING,
    "enable_scaled_pos_embed": _FULL_FINE_TUNING,
    "t5xxl_device": _MEMORY,
    "t5xxl_dtype": _MEMORY,
    "t5xxl_max_token_length": "prompts are as long as inference takes them",
    "fp16_master_weights_and_gradients": _DEEPSPEED,
    "offload_optimizer_device": _DEEPSPEED,
    "offload_optimizer_nvme_path": _DEEPSPEED,
    "offload_param_device": _DEEPSPEED,
    "offload_param_nvme_path": _DEEPSPEED,
    "zero3_init_flag": _DEEPSPEED,
    "zero3_save_16bit_model": _DEEPSPEED,
    "zero_stage": _DEEPSPEED,
    "log_config": "the resolved config is always written into the trial's folder",
    "log_prefix": "curves go by the name of the trial",
    "log_tracker_config": "trackers are set up by their own environment variables",
    "sample_sampler": "pictures are drawn with the base model's own scheduler",
    "save_state_on_train_end": "the newest full state is always kept",
    "save_last_n_epochs_state": "states are kept with their checkpoints",
    "save_last_n_steps_state": "states are kept with their checkpoints",
    "noise_offset_type": "the keys of each kind of noise say it",
    "in_json": "captions lie beside the pictures or in metadata.jsonl",
    "dataset_repeats": "folders or subsets say it",
}
"""Keys of sd-scripts (and of its user interface's files) that change nothing here, with the reason."""

_UNCACHED = "pictures are encoded once, and this changes them at each showing; as sd-scripts with cache_latents"
REFUSED: dict[str, str] = {
    "color_aug": _UNCACHED,
    "random_crop": _UNCACHED,
    "face_crop_aug_range": _UNCACHED,
    "full_fp16": "float16 weights lose small updates; use full_bf16, or mixed_precision alone",
    "weighted_captions": "parentheses in captions are text here",
    "token_warmup_step": "captions have all their tags from the first step",
    "token_warmup_min": "captions have all their tags from the first step",
    "secondary_separator": "tags are divided by caption_separator alone",
    "controlnet_model_name_or_path": "control networks are not trained",
    "perlin_noise": "sd-scripts itself no longer has it",
    "lr_scheduler_type": "schedules go by `lr_scheduler`",
    "optimizer_schedulefree_wrapper": "take AdamWScheduleFree, RAdamScheduleFree or SGDScheduleFree",
    "schedulefree_wrapper_args": "take AdamWScheduleFree, RAdamScheduleFree or SGDScheduleFree",
    "use_8bit_adam": 'write `optimizer_type = "AdamW8bit"`',
    "use_lion_optimizer": 'write `optimizer_type = "Lion"`',
    "metadata_file": "captions lie beside the pictures or in a metadata.jsonl of their folder; give image_dir",
    "dim_from_weights": "give the file's rank as network_dim",
    "base_weights": "merge it into the base model first",
    "base_weights_multiplier": "merge it into the base model first",
    "deepspeed": _DEEPSPEED,
    "save_n_epoch_ratio": "write save_every_n_epochs",
    "skip_until_initial_step": "--resume goes on exactly where a run was",
    "initial_epoch": "--resume goes on exactly where a run was",
    "initial_step": "--resume goes on exactly where a run was",
    "model_prediction_type": "flow models predict noise minus picture here, which is `raw`",
    "apply_t5_attn_mask": "prompts are encoded as inference does it",
    "apply_lg_attn_mask": "prompts are encoded as inference does it",
    "clip_l": "the base model holds its text encoders; give a whole pipeline",
    "clip_g": "the base model holds its text encoders; give a whole pipeline",
    "t5xxl": "the base model holds its text encoders; give a whole pipeline",
    "ae": "the base model holds its autoencoder; give a whole pipeline",
    "clip_l_dropout_rate": "captions are dropped whole: caption_dropout_rate",
    "clip_g_dropout_rate": "captions are dropped whole: caption_dropout_rate",
    "t5_dropout_rate": "captions are dropped whole: caption_dropout_rate",
}
"""Keys of sd-scripts that would change the result and cannot be had here, with what to do. False, 0 or an empty value
asks for nothing and passes."""

# Values that pass for a refused key because they ask for what is done anyway.
_AS_DONE: dict[str, tuple[Any, ...]] = {
    "model_prediction_type": ("raw",),
    "token_warmup_min": (1,),
    "base_weights_multiplier": (1.0,),
}


def sorted_in(value: dict[str, Any], model: type[BaseModel], source: str) -> tuple[dict[str, Any], list[str]]:
    """The keys of a parsed TOML in the sections of `model` that know them, and the keys without effect.

    Args:
        value: flat, in our sections, or in any others.
        source: the file, for errors.

    Returns:
        The table for `model`, and "`key` (why)" of each key that has no effect.

    Raises:
        UserError: an unknown key, a key given twice with different values, or one that cannot be had here.
    """
    sections = _sections(model)
    homes = {key: name for name, section in sections.items() for key in section.model_fields}
    # Empty ones too: of a missing key its section is named, and not the section alone.
    found: dict[str, Any] = {name: {} for name in sections}
    origin: dict[str, tuple[str, Any]] = {}
    notes: list[str] = []
    for place, name, given in _flat(value):
        if isinstance(given, list) and given and all(isinstance(item, dict) for item in given):
            found[name] = given
            continue
        key = RENAMED.get(name, name)
        if key in origin and origin[key][1] != given:
            raise UserError(
                f"{source}: `{key}` is {origin[key][1]!r} {origin[key][0]} and {given!r} {place}; keep one of them"
            )
        origin[key] = (place, given)
        if key in homes:
            found[homes[key]][key] = _converted(key, given)
        elif not _foreign(key, name, given, source, notes):
            raise UserError(f"{source}: unknown key `{name}` {place}; {_nearest(name, homes)}")
    return found, notes


def without_foreign(value: dict[str, Any], model: type[BaseModel], source: str) -> tuple[dict[str, Any], list[str]]:
    """The keys of one table for `model`, which judges unknown ones; the rest and errors are as in `sorted_in`."""
    found: dict[str, Any] = {}
    notes: list[str] = []
    for name, given in value.items():
        key = RENAMED.get(name, name)
        if key in model.model_fields or not _foreign(key, name, given, source, notes):
            found[key] = _converted(key, given)
    return found, notes


def _foreign(key: str, name: str, given: Any, source: str, notes: list[str]) -> bool:
    """Whether the key is one of sd-scripts that we lack; notes it. Raises UserError where it cannot be had."""
    if key in NO_EFFECT:
        if _asks(given):
            notes.append(f"`{name}` ({NO_EFFECT[key]})")
        return True
    if key in REFUSED and _asks(given) and given not in _AS_DONE.get(key, ()):
        raise UserError(f"{source}: `{name}` cannot be had: {REFUSED[key]}; remove it")
    return key in REFUSED


def _sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The tables of `model` by name; lists of tables are none."""
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


def _flat(value: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Place, key and value of all keys; lists of tables stay whole."""
    found: list[tuple[str, str, Any]] = []
    for name, given in value.items():
        if isinstance(given, dict):
            found += [(f"in [{name}]", key, inner) for key, inner in given.items()]
        else:
            found.append(("before any table", name, given))
    return found


def _asks(given: Any) -> bool:
    return given not in (False, 0, "", None, [], "no")


def _converted(key: str, given: Any) -> Any:
    """Values that sd-scripts takes as text for its command line, as ours."""
    if key == "resolution" and isinstance(given, str):
        sides = [int(part) for part in given.split(",") if part.strip().isdigit()]
        return sides[0] if len(sides) == 1 else sides or given
    if key in ("optimizer_args", "lr_scheduler_args", "network_args") and isinstance(given, str):
        return given.split()
    return given


def _nearest(name: str, homes: dict[str, str]) -> str:
    near = difflib.get_close_matches(name, [*homes, *RENAMED], n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    return "neither OnModel nor sd-scripts has it; remove it"
