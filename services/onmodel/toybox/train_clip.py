"""Train the bundled open_clip model: pictures against captions, and crops of one character against each other.

    python -m onmodel.toybox.train_clip SET_FOLDER

Two losses share the image tower. Whole pictures and captions are contrasted as in CLIP (Radford et al., 2021); crops of
characters are pulled together by identity (supervised contrastive loss, Khosla et al., 2020), every fourth identity
being a near twin of another, so that the embedding of a crop tells who it is rather than what picture it is from.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from onmodel.core.vocabulary import Box
from onmodel.toybox import tokens, training_set
from onmodel.toybox.models import MODELS
from onmodel.toybox.schedule import Average, write_whole
from onmodel.toybox.wording import vocabulary


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Sizes of the towers and how long to train."""

    image_size: int = 64
    embed_dim: int = 128
    vision_width: int = 20
    vision_layers: tuple[int, int, int, int] = (1, 1, 2, 1)
    text_width: int = 128
    text_layers: int = 2
    context: int = 48
    minutes: float = 20.0
    batch: int = 48
    learning_rate: float = 2e-3
    temperature: float = 0.1
    identity_weight: float = 1.0
    average: float = 0.995
    seed: int = 13


MEAN, STD = (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)
MARGIN = 8
"""Crops are kept this much larger than the input, so that a window in them can move."""


def model_config(config: ClipConfig) -> dict[str, Any]:
    """The `model_cfg` that open_clip reads: a ModifiedResNet and a small text transformer over our own vocabulary."""
    vocab, _ = tokens.build_vocabulary()
    return {
        "embed_dim": config.embed_dim,
        "vision_cfg": {
            "image_size": config.image_size, "layers": list(config.vision_layers), "width": config.vision_width,
            "head_width": 80,
        },
        "text_cfg": {
            "context_length": config.context, "vocab_size": len(vocab), "width": config.text_width, "heads": 4,
            "layers": config.text_layers, "hf_tokenizer_name": "tokenizer in this folder",
        },
    }  # fmt: skip


def build(config: ClipConfig) -> Any:
    """An untrained model; the text tower pools at the end token, which has the highest id."""
    described = model_config(config)
    kind: Any = open_clip.CLIP
    return kind(described["embed_dim"], described["vision_cfg"], {**described["text_cfg"], "hf_tokenizer_name": None})


def fit(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Scale so that the longer side is `size` and pad to a grey square, as open_clip's "longest" resizing does."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    out = np.full((size, size, 3), 127, dtype=np.uint8)
    x, y = (size - w) // 2, (size - h) // 2
    out[y : y + h, x : x + w] = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BICUBIC))
    return out


def cut_out(image: npt.NDArray[np.uint8], box: Box) -> npt.NDArray[np.uint8]:
    """The pixels in a box, at least 4 x 4 of them."""
    side = image.shape[0]
    x0, y0 = int(np.clip(round(box.x0), 0, side - 4)), int(np.clip(round(box.y0), 0, side - 4))
    x1, y1 = int(np.clip(round(box.x1), x0 + 4, side)), int(np.clip(round(box.y1), y0 + 4, side))
    return image[y0:y1, x0:x1]


def _normal(images: npt.NDArray[np.uint8]) -> Tensor:
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def _augment(images: npt.NDArray[np.uint8], size: int, rng: np.random.Generator) -> Tensor:
    """Random window, mirror, softness and tone: generated pictures are softer than renders, and light differs."""
    room = images.shape[1] - size
    out = np.empty((len(images), size, size, 3), dtype=np.uint8)
    for k, image in enumerate(images):
        y, x = (int(v) for v in rng.integers(0, room + 1, 2))
        window = image[y : y + size, x : x + size]
        out[k] = window[:, ::-1] if rng.random() < 0.5 else window
    x = _normal(out)
    if rng.random() < 0.4:
        x = functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    gain = torch.from_numpy(rng.uniform(0.88, 1.12, (len(images), 3, 1, 1)).astype(np.float32))
    return x * gain + torch.from_numpy(rng.uniform(-0.12, 0.12, (len(images), 1, 1, 1)).astype(np.float32))


def identity_loss(embedded: Tensor, who: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss of unit vectors (n, d) with identities (n,)."""
    similarity = embedded @ embedded.T / temperature
    same = who[:, None] == who[None, :]
    itself = torch.eye(len(who), dtype=torch.bool)
    log_share = similarity - similarity.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    positive = same & ~itself
    counts = positive.sum(dim=1).clamp(min=1)
    return -(log_share.masked_fill(~positive, 0).sum(dim=1) / counts)[positive.any(dim=1)].mean()


def caption_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss of unit vectors (n, d)."""
    logits = scale * images @ texts.T
    target = torch.arange(len(images))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


@dataclass(frozen=True, slots=True)
class _Data:
    whole: npt.NDArray[np.uint8]
    crops: npt.NDArray[np.uint8]
    crop_of: list[npt.NDArray[np.int64]]
    """Crop numbers of each identity that has at least two."""
    texts: Tensor
    """(pictures, wordings, context) token ids."""


def prepare(data: training_set.TrainingSet, config: ClipConfig) -> _Data:
    """Pictures and crops at input size plus a margin, and tokens of every wording."""
    size = config.image_size
    whole = np.stack([fit(i, size + 4) for i in data.images])
    crops: list[npt.NDArray[np.uint8]] = []
    groups: dict[int, list[int]] = {}
    for image, truth, who in zip(data.images, data.truths, data.identities, strict=True):
        if not truth.characters or truth.shot_type == "unclassified":
            continue
        main = truth.characters[0]
        if main.visible_box is None or main.visible_pixels < 60:
            continue
        groups.setdefault(int(who), []).append(len(crops))
        crops.append(fit(cut_out(image, main.visible_box), size + MARGIN))
    flat = [c for wordings in data.captions for c in wordings]
    texts = tokenize(flat, config.context).view(len(data.captions), -1, config.context)
    return _Data(whole, np.stack(crops), [np.array(g) for g in groups.values() if len(g) > 1], texts)


def tokenize(texts: list[str], context: int) -> Tensor:
    """(n, context) token ids as the bundled tokenizer gives them."""
    import tempfile

    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokens.save(Path(folder))
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    encoded: Any = tokenizer(texts, padding="max_length", truncation=True, max_length=context, return_tensors="pt")
    return encoded.input_ids


def train(data: _Data, config: ClipConfig) -> Any:
    """Train for `config.minutes`; returns the averaged model."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    model = build(config)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    average = Average(model, config.average)
    began, step, log = time.monotonic(), 0, []
    while (done := (time.monotonic() - began) / (60 * config.minutes)) < 1:
        rate = config.learning_rate * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        pictures = rng.integers(len(data.whole), size=config.batch)
        # Neighbouring identities in one batch bring every near twin together with its model.
        first = int(rng.integers(len(data.crop_of)))
        near = [(first + k) % len(data.crop_of) for k in range(8)]
        chosen = [*near, *rng.integers(len(data.crop_of), size=config.batch // 2 - 8)]
        pairs = [rng.choice(data.crop_of[int(i)], 2, replace=False) for i in chosen]
        crops = np.concatenate(pairs)
        who = torch.tensor([int(i) for i in chosen]).repeat_interleave(2)
        views = torch.cat([
            _augment(data.whole[pictures], config.image_size, rng), _augment(data.crops[crops], config.image_size, rng)
        ])  # fmt: skip
        embedded = functional.normalize(model.encode_image(views), dim=-1)
        wording = rng.integers(data.texts.shape[1], size=config.batch)
        texts = functional.normalize(model.encode_text(data.texts[pictures, wording]), dim=-1)
        caption = caption_loss(embedded[: config.batch], texts, model.logit_scale.exp().clamp(max=50))
        same = identity_loss(embedded[config.batch :], who, config.temperature)
        optimizer.zero_grad(set_to_none=True)
        (caption + config.identity_weight * same).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        step += 1
        log.append((float(caption.detach()), float(same.detach())))
        if step % 50 == 0:
            c, s = np.mean(log[-50:], axis=0)
            print(
                f"{(time.monotonic() - began) / 60:.1f} min, step {step}, captions {c:.3f}, identity {s:.3f}",
                flush=True,
            )
    average.copy_to(model)
    return model.eval()


def save(model: Any, config: ClipConfig, target: Path) -> None:
    """Write a folder for `open_clip.create_model_and_transforms("local-dir:…")`; weights in half precision."""
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "longest", "fill_color": 127}

    def write(folder: Path) -> None:
        weights = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}
        save_file(weights, folder / "open_clip_model.safetensors")
        described = {"model_cfg": model_config(config), "preprocess_cfg": preprocess}
        (folder / "open_clip_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        tokens.save(folder)

    write_whole(target, write)


def main(set_folder: Path) -> None:
    """Train, install as the bundled model, and report."""
    config = ClipConfig()
    print(f"{len(vocabulary())} words", flush=True)
    model = train(prepare(training_set.read(set_folder), config), config)
    save(model, config, MODELS / "clip")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
