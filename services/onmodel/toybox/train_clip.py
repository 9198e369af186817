"""Train the bundled open_clip model: pictures against captions, and crops of one character against each other.

    python -m onmodel.toybox.train_clip SET_FOLDER [SECONDS]

Two losses share the image tower. Whole pictures and captions are contrasted as in CLIP (Radford et al., 2021); crops of
characters are pulled together by identity (supervised contrastive loss, Khosla et al., 2020), every fourth identity
being a near twin of another, so that the embedding of a crop tells who it is rather than what picture it is from.
"""

from __future__ import annotations

import json
import sys
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
from onmodel.toybox.schedule import Average, Clock, best_device, half_precision, write_whole


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Sizes of the towers and how long to train."""

    image_size: int = 64
    embed_dim: int = 128
    vision_width: int = 24
    vision_layers: tuple[int, int, int, int] = (1, 1, 2, 1)
    text_width: int = 192
    text_layers: int = 3
    context: int = 48
    batch: int = 512
    """Pictures with captions, and as many crops in pairs of one character."""
    near: int = 64
    """Characters in a batch that are neighbours in the set, which brings every near twin together with its model."""
    learning_rate: float = 1.5e-3
    temperature: float = 0.1
    identity_weight: float = 1.0
    average: float = 0.999
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
            "head_width": 4 * config.vision_width,
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


def _normal(images: Tensor) -> Tensor:
    x = images.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


def _augment(images: Tensor, size: int) -> Tensor:
    """Random window, mirror, softness and tone: generated pictures are softer than renders, and light differs.

    uint8 (n, s, s, 3) with s of at least `size` to normalised float (n, 3, size, size), on the same device.
    """
    n, device = len(images), images.device
    room = images.shape[1] - size
    line = torch.arange(size, device=device)
    rows, columns = (line + torch.randint(room + 1, (n, 1), device=device) for _ in range(2))
    columns = torch.where(torch.rand(n, 1, device=device) < 0.5, columns.flip(1), columns)
    picture = torch.arange(n, device=device)[:, None, None]
    x = _normal(images[picture, rows[:, :, None], columns[:, None, :]])
    soft = functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    x = torch.where(torch.rand(n, 1, 1, 1, device=device) < 0.4, soft, x)
    gain = 0.88 + 0.24 * torch.rand(n, 3, 1, 1, device=device)
    return x * gain + (0.24 * torch.rand(n, 1, 1, 1, device=device) - 0.12)


def identity_loss(embedded: Tensor, who: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss of unit vectors (n, d) with identities (n,)."""
    similarity = embedded @ embedded.T / temperature
    same = who[:, None] == who[None, :]
    itself = torch.eye(len(who), dtype=torch.bool, device=who.device)
    log_share = similarity - similarity.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    positive = same & ~itself
    counts = positive.sum(dim=1).clamp(min=1)
    return -(log_share.masked_fill(~positive, 0).sum(dim=1) / counts)[positive.any(dim=1)].mean()


def caption_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss of unit vectors (n, d)."""
    logits = scale * images @ texts.T
    target = torch.arange(len(images), device=images.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


@dataclass(frozen=True, slots=True)
class _Data:
    whole: Tensor
    crops: Tensor
    crop_of: Tensor
    """(identities, 2 or more) crop numbers of each identity that has at least two, the first ones repeated to fill."""
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
    device, longest = best_device(), max(len(g) for g in groups.values())
    filled = [[g[k % len(g)] for k in range(longest)] for g in groups.values() if len(g) > 1]
    return _Data(
        torch.from_numpy(whole).to(device),
        torch.from_numpy(np.stack(crops)).to(device),
        torch.tensor(filled, device=device),
        texts.to(device),
    )


def tokenize(texts: list[str], context: int) -> Tensor:
    """(n, context) token ids as the bundled tokenizer gives them."""
    import tempfile

    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokens.save(Path(folder))
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    encoded: Any = tokenizer(texts, padding="max_length", truncation=True, max_length=context, return_tensors="pt")
    return encoded.input_ids


def pairs(data: _Data, config: ClipConfig) -> tuple[Tensor, Tensor]:
    """Crop numbers (batch,) in pairs of one character each, and whose they are; half or more of them neighbours."""
    device, identities = data.crop_of.device, len(data.crop_of)
    near = (torch.randint(identities, (1,), device=device) + torch.arange(config.near, device=device)) % identities
    anyone = torch.randint(identities, (config.batch // 2 - config.near,), device=device)
    who = torch.cat([near, anyone])
    width = data.crop_of.shape[1]
    first = torch.randint(width, (len(who),), device=device)
    second = (first + 1 + torch.randint(width - 1, (len(who),), device=device)) % width
    crops = torch.stack([data.crop_of[who, first], data.crop_of[who, second]], dim=1)
    return crops.flatten(), who.repeat_interleave(2)


def train(data: _Data, seconds: float, config: ClipConfig) -> Any:
    """Train for that long; returns the averaged model."""
    device = data.whole.device
    torch.manual_seed(config.seed)
    model = build(config).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True
    )  # fmt: skip
    average = Average(model, config.average)
    total, clock = torch.zeros(2, device=device), Clock(optimizer, seconds, warmup=150, floor=0.02)
    for step in clock:
        pictures = torch.randint(len(data.whole), (config.batch,), device=device)
        crops, who = pairs(data, config)
        views = torch.cat([
            _augment(data.whole[pictures], config.image_size), _augment(data.crops[crops], config.image_size)
        ])  # fmt: skip
        wording = torch.randint(data.texts.shape[1], (config.batch,), device=device)
        with half_precision(device):
            embedded = functional.normalize(model.encode_image(views).float(), dim=-1)
            texts = functional.normalize(model.encode_text(data.texts[pictures, wording]).float(), dim=-1)
        caption = caption_loss(embedded[: config.batch], texts, model.logit_scale.exp().clamp(max=50))
        same = identity_loss(embedded[config.batch :], who, config.temperature)
        optimizer.zero_grad(set_to_none=True)
        (caption + config.identity_weight * same).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)
        total += torch.stack([caption.detach(), same.detach()])
        if step % 100 == 99:
            c, s = (total / 100).tolist()
            print(f"scorer: step {step + 1}, captions {c:.3f}, identity {s:.3f}", flush=True)
            total.zero_()
    print(f"scorer: {clock.step} steps of {config.batch}", flush=True)
    average.copy_to(model)
    return model.cpu().eval()


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


def main(set_folder: Path, seconds: float) -> None:
    """Train and install as the bundled model."""
    config = ClipConfig()
    model = train(prepare(training_set.read(set_folder), config), seconds, config)
    save(model, config, MODELS / "clip")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1200.0)
