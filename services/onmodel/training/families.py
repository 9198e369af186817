"""One adapter a model family: how pictures and captions are encoded, and how the denoiser is called.

Loss, loop, network and export know families through `Family` alone.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from onmodel.core.errors import UserError
from onmodel.core.files import content_hash
from onmodel.training.loss import NoiseSchedule
from onmodel.training.network import lora_components


class Family(Protocol):
    """A diffusion model as training sees it. Pictures: float32 (B, 3, H, W), -1 to 1, RGB."""

    components: dict[str, nn.Module]
    """What can carry a LoRA, by its name in the diffusers pipeline."""
    schedule: NoiseSchedule
    base_version: str
    """sd-scripts' `ss_base_model_version`."""
    architecture: str
    """ModelSpec's architecture, without `/lora`."""
    pixels_per_latent: int
    """How many times smaller latents are than pictures, on each side."""

    def picture_hash(self) -> str:
        """Hash of the weights that `encode_pictures` depends on."""
        ...

    def caption_hash(self) -> str:
        """Hash of the weights that `encode_captions` depends on."""
        ...

    def encode_pictures(self, pixels: Tensor) -> Tensor:
        """Scaled latents float32 (B, C, h, w), `pixels_per_latent` times smaller; the mean of the encoding."""
        ...

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """Text conditioning (B, tokens, width), as inference makes it."""
        ...

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        """The denoiser's output for `noisy` latents (B, C, h, w) at integer `timesteps` (B,)."""
        ...

    def release_encoders(self, *, captions: bool) -> None:
        """Move what is no longer needed off the accelerator; the text encoder too when `captions`."""
        ...


class StableDiffusion:
    """Stable Diffusion 1.x and 2.x, and anything of their structure (the bundled pipeline)."""

    def __init__(self, pipeline: Any, v_parameterization: bool | None = None) -> None:
        """`v_parameterization` None: as the pipeline's scheduler says. Raises UserError for another structure."""
        self.components = lora_components(pipeline)
        if pipeline.unet.config.addition_embed_type is not None or getattr(pipeline, "text_encoder_2", None):
            raise UserError(
                "the base model is of SDXL's structure; this version trains Stable Diffusion 1.x and 2.x only"
            )
        self._pipeline = pipeline
        given = pipeline.scheduler.config.get("prediction_type", "epsilon")
        prediction = given if v_parameterization is None else ("v_prediction" if v_parameterization else "epsilon")
        if prediction not in ("epsilon", "v_prediction"):
            raise UserError(f"the base model predicts `{prediction}`; only epsilon and v_prediction can be trained")
        self.schedule = NoiseSchedule(pipeline.scheduler.alphas_cumprod.float().clone(), prediction)
        width = pipeline.unet.config.cross_attention_dim
        self.architecture = {768: "stable-diffusion-v1", 1024: "stable-diffusion-v2"}.get(width, "onmodel-toybox")
        version = {768: "sd_v1", 1024: "sd_v2"}.get(width, "onmodel_toybox")
        self.pixels_per_latent = int(pipeline.vae_scale_factor)
        self.base_version = version + ("_v" if prediction == "v_prediction" else "")

    def picture_hash(self) -> str:
        return _weights_hash(self._pipeline.vae)

    def caption_hash(self) -> str:
        return _weights_hash(self._pipeline.text_encoder)

    @torch.no_grad()
    def encode_pictures(self, pixels: Tensor) -> Tensor:
        vae = self._pipeline.vae
        encoded = vae.encode(pixels.to(vae.device, vae.dtype))
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        return ((latents.float() - shift) * vae.config.scaling_factor).contiguous()

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        # The pipeline's own encoder: what is trained on is to the bit what pictures will be drawn from.
        embeddings, _ = self._pipeline.encode_prompt(
            prompt=list(captions),
            device=self._pipeline.text_encoder.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return embeddings

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        return self._pipeline.unet(noisy, timesteps, encoder_hidden_states=conditioning, return_dict=False)[0]

    def release_encoders(self, *, captions: bool) -> None:
        self._pipeline.vae.to("cpu")
        if captions:
            self._pipeline.text_encoder.to("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, types and bytes of a module's weights."""
    parts: list[str] = [type(module).__name__]
    for name, tensor in sorted(module.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        parts += [name, str(data.dtype), content_hash(data.view(torch.uint8).numpy().tobytes())]
    return content_hash("\n".join(parts).encode())
