"""A captioning model from a folder: any image-to-text checkpoint that transformers can load."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from onmodel.core.config import Config
from onmodel.core.errors import ImageError, NotFoundError, UserError, first_line
from onmodel.core.images import decode


class CaptionerConfig(Config):
    """Which model describes pictures, and how."""

    path: Path
    """Folder of a transformers checkpoint (BLIP, GIT, ViT-GPT2, Florence, LLaVA, Qwen-VL, …) with its processor."""
    prompt: str | None = None
    """What a model that follows instructions is told; models that only continue a text start from it."""
    batch_size: int = Field(default=8, ge=1)
    max_new_tokens: int = Field(default=48, ge=1)
    device: str = "auto"
    """"auto" takes a GPU where there is one."""


class Captioner:
    """Describes pictures in batches, always the same sentence for the same picture (greedy search)."""

    def __init__(self, config: CaptionerConfig) -> None:
        """Load model and processor from the folder; nothing is fetched from anywhere.

        Raises:
            NotFoundError: no such folder.
            UserError: it holds no image-to-text model, or lacks its processor.
        """
        if not (config.path / "config.json").is_file():
            raise NotFoundError(f"{config.path}: no config.json there; give the folder of a transformers checkpoint")
        # Imported here: takes seconds, and a wrong path is answered before.
        import torch
        from transformers import AutoModelForImageTextToText

        self._config = config
        wanted = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
        self._device = torch.device(wanted)
        try:
            self._processor: Any = _processor(config.path)
            model: Any = AutoModelForImageTextToText.from_pretrained(config.path, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise UserError(
                f"{config.path}: no image-to-text model that transformers can load ({first_line(error)}); "
                "give a folder saved with save_pretrained, its processor included"
            ) from None
        self._model: Any = model.to(self._device).eval()

    def describe(self, images: Sequence[bytes], *, advance: Callable[[int], object] = lambda count: None) -> list[str]:
        """One sentence a picture, in order; empty for a picture that cannot be decoded.

        Args:
            images: encoded pictures.
            advance: called with the number of pictures done.
        """
        said: list[str] = []
        for start in range(0, len(images), self._config.batch_size):
            batch = images[start : start + self._config.batch_size]
            pictures: list[Any] = []
            for data in batch:
                try:
                    # A copy: what Pillow decodes is read-only, and torch warns of that.
                    pictures.append(decode(data).copy())
                except ImageError:
                    pictures.append(None)
            sentences = iter(self._sentences([p for p in pictures if p is not None]))
            said += ["" if picture is None else next(sentences) for picture in pictures]
            advance(len(batch))
        return said

    def _sentences(self, pictures: list[Any]) -> list[str]:
        import torch

        if not pictures:
            return []
        inputs = self._inputs(pictures)
        with torch.inference_mode():
            made = self._model.generate(
                **inputs, max_new_tokens=self._config.max_new_tokens, do_sample=False, num_beams=1
            )
        # Decoder-only models answer with the prompt before the answer.
        start = inputs["input_ids"].shape[1] if "input_ids" in inputs and _echoes(self._model) else 0
        texts: list[str] = self._processor.batch_decode(made[:, start:], skip_special_tokens=True)
        return [clean(text, self._config.prompt) for text in texts]

    def _inputs(self, pictures: list[Any]) -> dict[str, Any]:
        prompt, count = self._config.prompt, len(pictures)
        texts: list[str] | None = None
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": prompt or "Describe the picture in one sentence."}]
            text = self._processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            texts = [text] * count
        elif prompt is not None:
            texts = [prompt] * count
        given = {"images": pictures, "return_tensors": "pt"}
        if texts is not None:
            given |= {"text": texts, "padding": True}
        inputs: dict[str, Any] = dict(self._processor(**given))
        known = {key: value for key, value in inputs.items() if key != "token_type_ids"}
        return {key: value.to(self._device) for key, value in known.items()}


def _processor(path: Path) -> Any:
    """The checkpoint's processor; for an encoder-decoder pair, which has none, its two halves."""
    from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer

    config: Any = AutoConfig.from_pretrained(path, local_files_only=True)
    if config.model_type != "vision-encoder-decoder":
        return AutoProcessor.from_pretrained(path, local_files_only=True)
    return _Pair(
        AutoImageProcessor.from_pretrained(path, local_files_only=True),
        AutoTokenizer.from_pretrained(path, local_files_only=True),
    )


class _Pair:
    """An image processor and a tokenizer, used as one processor."""

    chat_template = None

    def __init__(self, images: Any, tokenizer: Any) -> None:
        self._images = images
        self._tokenizer = tokenizer

    def __call__(self, images: list[Any], return_tensors: str, **_: Any) -> dict[str, Any]:
        return {"pixel_values": self._images(images=images, return_tensors=return_tensors)["pixel_values"]}

    def batch_decode(self, tokens: Any, skip_special_tokens: bool) -> list[str]:
        return self._tokenizer.batch_decode(tokens, skip_special_tokens=skip_special_tokens)


def _echoes(model: Any) -> bool:
    """Whether generated tokens begin with the prompt's: not where a separate decoder writes the answer."""
    config = model.config
    return not getattr(config, "is_encoder_decoder", False) and config.model_type not in (
        "blip",
        "vision-encoder-decoder",
    )


def clean(text: str, prompt: str | None = None) -> str:
    """A model's sentence as a caption's part: one line, without the prompt it repeats, full stop or first capital."""
    line = " ".join(text.split()).strip(" .")
    if prompt and line.lower().startswith(prompt.lower()):
        line = line[len(prompt) :].strip(" .:")
    if len(line) > 1 and line[0].isupper() and not line[1].isupper():
        line = line[0].lower() + line[1:]
    return line
