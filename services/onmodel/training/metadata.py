"""The metadata of a LoRA file: what sd-scripts and ModelSpec readers expect, all strings."""

import json
import platform
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from onmodel import __version__
from onmodel.training.config import TrainConfig
from onmodel.training.data import TrainingData
from onmodel.training.families import Family
from onmodel.training.schedule import warmup_steps


@dataclass(frozen=True)
class Session:
    """One training run from its first step."""

    id: int
    started: float
    """Seconds since 1970."""
    model_hash: str
    """Hash of the base model's weights, hex."""


def lora_metadata(
    config: TrainConfig,
    family: Family,
    data: TrainingData,
    session: Session,
    *,
    epoch: int,
    step: int,
    total_steps: int,
    stage_steps: int,
    steps_per_epoch: int,
    epochs: int,
    stage: str,
    finished: float,
) -> dict[str, str]:
    """Metadata of the checkpoint after `epoch` (from 1) and `step` optimizer steps, in a stage of that config.

    Args:
        total_steps: optimizer steps of the whole run.
        stage_steps: those of the stage, over which its learning-rate schedule goes.
    """
    values = {
        **_settings(config, family, session, total_steps, stage_steps),
        **_dataset(config, data),
        **_model_spec(config, family, finished),
        **_trigger(data),
        "ss_epoch": epoch,
        "ss_steps": step,
        "ss_num_batches_per_epoch": steps_per_epoch * config.training.gradient_accumulation_steps,
        "ss_num_epochs": epochs,
        "ss_onmodel_stage": stage,
        "ss_training_started_at": session.started,
        "ss_training_finished_at": finished,
    }
    return {key: value if isinstance(value, str) else str(value) for key, value in values.items()}


def _settings(
    config: TrainConfig, family: Family, session: Session, total_steps: int, stage_steps: int
) -> dict[str, object]:
    optimizer, training, net = config.optimizer, config.training, config.network
    plain = family.naming.network_module
    return {
        "ss_v2": family.base_version.startswith("sd_v2"),
        "ss_base_model_version": family.base_version,
        # sd-scripts has a module of its own for some structures.
        "ss_network_module": plain if net.network_module.startswith("networks.") else net.network_module,
        "ss_network_dim": net.network_dim,
        "ss_network_alpha": net.network_alpha,
        "ss_network_dropout": net.network_dropout or None,
        "ss_network_args": json.dumps(dict(item.split("=", 1) for item in net.network_args)),
        "ss_output_name": training.output_name,
        "ss_session_id": session.id,
        "ss_seed": training.seed,
        "ss_learning_rate": optimizer.learning_rate,
        "ss_unet_lr": optimizer.unet_lr,
        "ss_text_encoder_lr": optimizer.text_encoder_lr if net.trains_text else None,
        "ss_optimizer": f"{optimizer.optimizer_type}({','.join(optimizer.optimizer_args)})",
        "ss_lr_scheduler": optimizer.lr_scheduler,
        "ss_lr_warmup_steps": warmup_steps(optimizer, stage_steps),
        "ss_max_train_steps": total_steps,
        "ss_max_grad_norm": optimizer.max_grad_norm,
        "ss_gradient_checkpointing": config.advanced.gradient_checkpointing,
        "ss_gradient_accumulation_steps": training.gradient_accumulation_steps,
        "ss_mixed_precision": training.mixed_precision,
        "ss_clip_skip": config.model.clip_skip if config.model.clip_skip > 1 else None,
        "ss_max_token_length": config.model.max_token_length if config.model.windows > 1 else None,
        "ss_vae_name": Path(config.model.vae).name if config.model.vae else None,
        **_loss(config),
        "ss_zero_terminal_snr": config.model.zero_terminal_snr,
        "ss_scale_weight_norms": optimizer.scale_weight_norms,
        "ss_full_bf16": training.full_bf16,
        "ss_cache_latents": True,
        "ss_caption_dropout_rate": config.data.caption_dropout_rate,
        "ss_caption_dropout_every_n_epochs": config.data.caption_dropout_every_n_epochs,
        "ss_caption_tag_dropout_rate": config.data.caption_tag_dropout_rate,
        "ss_prior_loss_weight": config.data.prior_loss_weight,
        "ss_sd_model_name": Path(config.model.pretrained_model_name_or_path).name,
        "ss_sd_model_hash": session.model_hash[:8],
        "ss_new_sd_model_hash": session.model_hash,
        "ss_sd_scripts_commit_hash": "",
        "ss_onmodel_version": __version__,
        "ss_python_version": platform.python_version(),
    }


def _loss(config: TrainConfig) -> dict[str, object]:
    advanced = config.advanced
    pyramid = bool(advanced.multires_noise_iterations)
    return {
        "ss_noise_offset": advanced.noise_offset or None,
        "ss_noise_offset_random_strength": advanced.noise_offset_random_strength,
        "ss_adaptive_noise_scale": advanced.adaptive_noise_scale or None,
        "ss_multires_noise_iterations": advanced.multires_noise_iterations or None,
        "ss_multires_noise_discount": advanced.multires_noise_discount if pyramid else None,
        "ss_ip_noise_gamma": advanced.ip_noise_gamma or None,
        "ss_ip_noise_gamma_random_strength": advanced.ip_noise_gamma_random_strength,
        "ss_min_snr_gamma": advanced.min_snr_gamma,
        "ss_debiased_estimation": advanced.debiased_estimation_loss,
        "ss_loss_type": advanced.loss_type,
        "ss_huber_schedule": advanced.huber_schedule,
        "ss_huber_c": advanced.huber_c,
        "ss_huber_scale": advanced.huber_scale,
        "ss_masked_loss": config.data.masked_loss,
    }


def _dataset(config: TrainConfig, data: TrainingData) -> dict[str, object]:
    folders: dict[str, dict[str, int]] = {}
    regular: dict[str, dict[str, int]] = {}
    tags: dict[str, Counter[str]] = {}
    for picture in data.pictures:
        name = picture.path.parent.name
        kind = regular if picture.is_reg else folders
        folder = kind.setdefault(name, {"n_repeats": picture.repeats, "img_count": 0})
        folder["img_count"] += 1
        tags.setdefault(name, Counter()).update(tag.strip() for tag in picture.caption.split(",") if tag.strip())
    counts = Counter[tuple[int, int]]()
    for bucket, repeats in zip(data.buckets, data.repeats, strict=True):
        counts[bucket] += repeats
    buckets = {
        str(index): {"resolution": list(size), "count": count}
        for index, (size, count) in enumerate(sorted(counts.items()))
    }
    bucket_info = {"buckets": buckets}
    images, regular_images = (
        sum(picture.repeats for picture in data.pictures if picture.is_reg == reg) for reg in (False, True)
    )
    described = {
        "is_dreambooth": True,
        "batch_size_per_device": config.training.train_batch_size,
        "num_train_images": images,
        "num_reg_images": regular_images,
        "resolution": list(config.data.size),
        "enable_bucket": config.data.enable_bucket,
        "min_bucket_reso": config.data.min_bucket_reso,
        "max_bucket_reso": config.data.max_bucket_reso,
        "bucket_info": bucket_info,
        "subsets": [
            {"image_dir": name, "img_count": f["img_count"], "num_repeats": f["n_repeats"]}
            for name, f in folders.items()
        ],
    }
    return {
        "ss_num_train_images": images,
        "ss_num_reg_images": regular_images,
        "ss_reg_dataset_dirs": json.dumps(regular),
        "ss_batch_size_per_device": config.training.train_batch_size,
        "ss_resolution": f"({config.data.size[0]}, {config.data.size[1]})",
        "ss_enable_bucket": config.data.enable_bucket,
        "ss_datasets": json.dumps([described]),
        "ss_dataset_dirs": json.dumps(folders),
        "ss_tag_frequency": json.dumps(tags, ensure_ascii=False),
        "ss_bucket_info": json.dumps(bucket_info),
    }


def _model_spec(config: TrainConfig, family: Family, finished: float) -> dict[str, object]:
    """ModelSpec 1.0.1."""
    width, height = config.data.size
    word = _PREDICTIONS.get(family.schedule.prediction_type)
    prediction: dict[str, object] = {"modelspec.prediction_type": word} if word else {}
    return prediction | {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{family.architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": config.training.output_name,
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.date": datetime.fromtimestamp(finished, UTC).isoformat(timespec="seconds"),
    }


_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}
"""ModelSpec's words; it has none for a flow."""


def _trigger(data: TrainingData) -> dict[str, object]:
    """The trigger phrase, where all folders name the same one."""
    phrases = {picture.class_tokens for picture in data.pictures if not picture.is_reg}
    phrase = phrases.pop() if len(phrases) == 1 else None
    return {"modelspec.trigger_phrase": phrase} if phrase else {}
