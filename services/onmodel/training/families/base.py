"""What a family is, and what several of them share."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from onmodel.core.errors import UserError
from onmodel.core.files import content_hash
from onmodel.training.loss import NoiseSchedule
from onmodel.training.naming import Naming
from onmodel.training.network import lora_components


class Family(Protocol):
    """A diffusion model as training sees it. Pictures: float32 (B, 3, H, W), -1 to 1, RGB."""

    components: dict[str, nn.Module]
    """What can carry a LoRA, by its name in the diffusers pipeline; the denoiser first."""
    naming: Naming
    """What LoRA files call its layers."""
    schedule: NoiseSchedule
    base_version: str
    """sd-scripts' `ss_base_model_version`."""
    architecture: str
    """ModelSpec's architecture, without `/lora`."""
    pixels_per_latent: int
    """How many times smaller latents are than pictures, on each side."""
    uses_sizes: bool
    """Whether `predict` makes use of its pictures' sizes."""

    def picture_hash(self) -> str:
        """Hash of the weights that `encode_pictures` depends on."""
        ...

    def caption_hash(self) -> str:
        """Hash of the weights and settings that `encode_captions` depends on."""
        ...

    def model_hash(self) -> str:
        """Hash that names the base model in files: of its encoders' weights, without a network."""
        ...

    def encode_pictures(self, pixels: Tensor) -> Tensor:
        """Scaled latents float32 (B, C, h, w), `pixels_per_latent` times smaller; the mean of the encoding."""
        ...

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """Text conditioning (B, rows, width), as inference makes it; what the rows are is the family's affair."""
        ...

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Tensor, sizes: Tensor | None = None) -> Tensor:
        """The denoiser's output for `noisy` latents (B, C, h, w).

        Args:
            timesteps: (B,), integers; of a flow model float32 σ·1000.
            conditioning: as `encode_captions` gives it.
            sizes: (B, 6) as `sizes.size_conditioning` gives them; None: uncropped pictures of the latents' own size.
        """
        ...

    def release_encoders(self, *, captions: bool) -> None:
        """Move what is no longer needed off the accelerator; the text encoders too when `captions`."""
        ...


def diffusion_schedule(pipeline: Any, v_parameterization: bool | None) -> NoiseSchedule:
    """The schedule of a pipeline that predicts noise or v. Raises UserError for one that predicts something else.

    `v_parameterization` None: as the pipeline's scheduler says.
    """
    given = pipeline.scheduler.config.get("prediction_type", "epsilon")
    prediction = given if v_parameterization is None else ("v_prediction" if v_parameterization else "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise UserError(f"the base model predicts `{prediction}`; only epsilon and v_prediction can be trained")
    return NoiseSchedule(pipeline.scheduler.alphas_cumprod.float().clone(), prediction)


class Encoders:
    """The encoders of a diffusers pipeline: what its families do with them alike."""

    def __init__(self, pipeline: Any, *texts: nn.Module, said: tuple[int, int] = (1, 1)) -> None:
        """Args:
        texts: its text encoders.
        said: by which layer and in how many windows these read captions.
        """
        self._pipeline = pipeline
        self._texts, self._said = texts, said
        self.components = lora_components(pipeline)
        self.pixels_per_latent = int(pipeline.vae_scale_factor)

        self._hashes: dict[str, str] = {}

    def picture_hash(self) -> str:
        return self._hash("pictures", self._pipeline.vae)

    def caption_hash(self) -> str:
        plain = self._hash("captions", *self._texts)
        return plain if self._said == (1, 1) else content_hash(f"{plain} {self._said}".encode())

    def model_hash(self) -> str:
        return content_hash((self.picture_hash() + self._hash("captions", *self._texts)).encode())

    def _hash(self, what: str, *modules: nn.Module) -> str:
        """Of weights that a run does not change; it reads all of them, so once."""
        if what not in self._hashes:
            self._hashes[what] = weights_hash(*modules)
        return self._hashes[what]

    @torch.no_grad()
    def encode_pictures(self, pixels: Tensor) -> Tensor:
        """Latents as `Family.encode_pictures` gives them: (mode − shift) · scale."""
        vae = self._pipeline.vae
        encoded = vae.encode(pixels.to(vae.device, vae.dtype))
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        return ((latents.float() - shift) * vae.config.scaling_factor).contiguous()

    def release_encoders(self, *, captions: bool) -> None:
        for module in (self._pipeline.vae, *(self._texts if captions else ())):
            module.to("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def pack(text: Tensor, pooled: Tensor) -> Tensor:
    """Text (B, tokens, width) and its pooled vector (B, n) as one tensor: the vector fills rows behind the text.

    So a caption's conditioning is one array in the cache, whatever the family.
    """
    rows = -(-pooled.shape[1] // text.shape[2])
    padded = torch.nn.functional.pad(pooled.to(text.dtype), (0, rows * text.shape[2] - pooled.shape[1]))
    return torch.cat([text, padded.view(len(text), rows, text.shape[2])], dim=1)


def unpack(conditioning: Tensor, pooled_width: int) -> tuple[Tensor, Tensor]:
    """What `pack` put together: text (B, tokens, width) and pooled vector (B, `pooled_width`)."""
    rows = -(-pooled_width // conditioning.shape[2])
    return conditioning[:, :-rows], conditioning[:, -rows:].flatten(1)[:, :pooled_width]


def weights_hash(*modules: nn.Module) -> str:
    """SHA-256 over names, types and bytes of the modules' weights."""
    parts: list[str] = []
    for module in modules:
        parts.append(type(module).__name__)
        for name, tensor in sorted(module.state_dict().items()):
            data = tensor.detach().cpu().contiguous()
            parts += [name, str(data.dtype), content_hash(data.view(torch.uint8).numpy().tobytes())]
    return content_hash("\n".join(parts).encode())
