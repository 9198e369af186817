"""What one step trains for: the draws of a batch, and the loss of each picture, as a config's settings say."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from onmodel.core.errors import UserError
from onmodel.training import loss, noise
from onmodel.training.advanced import AdvancedSection
from onmodel.training.devices import moved
from onmodel.training.loss import NoiseSchedule


@dataclass(frozen=True)
class Draw:
    """The randomness of one batch of B pictures."""

    noise: Tensor
    """float32 (B, C, H, W): what the target is made of."""
    added: Tensor
    """The same shape: what the latents are noised with; `noise` itself without input perturbation."""
    timesteps: Tensor
    """(B,): int64 below T; of a flow model float32, σ·T."""

    def part(self, mine: slice, device: torch.device) -> "Draw":
        """The draws of some pictures, on `device`."""
        plain = moved(self.noise[mine], device)
        added = plain if self.added is self.noise else moved(self.added[mine], device)
        return Draw(plain, added, moved(self.timesteps[mine], device))


class Objective:
    """The loss settings of a run (or a stage of it) on a model's noise schedule."""

    def __init__(self, schedule: NoiseSchedule, options: AdvancedSection) -> None:
        """Raises UserError for settings that the model's prediction type has no use for."""
        _check_fits(schedule, options)
        self.schedule = schedule
        self._options = options
        self._device_schedule = schedule

    def to(self, device: torch.device) -> "Objective":
        """The same, with the arithmetic on `device`; draws stay on the CPU."""
        self._device_schedule = self.schedule.to(device)
        return self

    def draw(self, latents: Tensor, generator: torch.Generator) -> Draw:
        """Noise and noise levels for a batch of `latents` (B, C, H, W), which lie on the CPU."""
        options, shape = self._options, tuple(latents.shape)
        plain = noise.gaussian(shape, generator)
        if options.noise_offset:
            size = noise.strength(options.noise_offset, generator, random=options.noise_offset_random_strength)
            plain = plain + noise.offset(latents, size, options.adaptive_noise_scale, generator)
        if options.multires_noise_iterations:
            plain = noise.pyramid(plain, options.multires_noise_iterations, options.multires_noise_discount, generator)
        timesteps = self._timesteps(shape, generator)
        added = plain
        if options.ip_noise_gamma:
            size = noise.strength(options.ip_noise_gamma, generator, random=options.ip_noise_gamma_random_strength)
            # Input perturbation (Ning et al. 2023): the model sees more noise than it is to predict.
            added = plain + size * noise.gaussian(shape, generator)
        return Draw(plain, added, timesteps)

    def _timesteps(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        options, total = self._options, self.schedule.timesteps
        least = options.min_timestep or 0
        most = total if options.max_timestep is None else options.max_timestep
        if self.schedule.prediction_type != "flow":
            return noise.timesteps(shape[0], least, most, generator)
        sigma = noise.flow_sigmas(
            shape[0],
            (shape[2], shape[3]),
            generator,
            sampling=options.timestep_sampling,
            scheme=options.weighting_scheme,
            shift=self.schedule.shift if options.discrete_flow_shift is None else options.discrete_flow_shift,
            sigmoid_scale=options.sigmoid_scale,
            logit_mean=options.logit_mean,
            logit_std=options.logit_std,
            mode_scale=options.mode_scale,
        )
        return least + sigma * (most - least)

    def noisy(self, latents: Tensor, draw: Draw) -> Tensor:
        """The noised latents (B, C, H, W) that the model sees."""
        return loss.add_noise(latents, draw.added, *self._device_schedule.factors(draw.timesteps))

    def losses(self, prediction: Tensor, latents: Tensor, draw: Draw, masks: Tensor | None = None) -> Tensor:
        """The weighted loss of each picture: float32 (B,).

        Args:
            prediction: the model's output (B, C, H, W).
            masks: float32 (B, H, W), 0 to 1: how much each latent cell counts; absent: all of them fully. As in
                sd-scripts the mean is over all cells, so a picture counts as much as its mask covers.
        """
        schedule, options = self._device_schedule, self._options
        kind = schedule.prediction_type
        signal, level = schedule.factors(draw.timesteps)
        snr = loss.signal_to_noise(signal, level)
        width = None
        if options.loss_type in ("huber", "smooth_l1"):
            width = loss.huber_widths(
                options.huber_schedule, options.huber_c, options.huber_scale, draw.timesteps, schedule.timesteps, snr
            )
        wanted = loss.target(latents, draw.noise, signal, level, kind)
        cells = loss.element_losses(prediction, wanted, options.loss_type, width)
        if masks is not None:
            cells = cells * masks.to(cells)[:, None]
        losses = cells.mean(dim=(1, 2, 3))
        if kind == "flow":
            return losses * noise.flow_weights(level, options.weighting_scheme)
        if options.min_snr_gamma:
            losses = losses * loss.min_snr_weights(snr, options.min_snr_gamma, kind)
        if options.scale_v_pred_loss_like_noise_pred:
            losses = losses * loss.noise_like_scale(snr)
        if options.v_pred_like_loss:
            losses = losses * (1 + options.v_pred_like_loss / loss.noise_like_scale(snr).clamp(min=loss.SNR_RANGE[0]))
        if options.debiased_estimation_loss:
            losses = losses * loss.debiased_weights(snr, kind)
        return losses


def resized_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (H, W), 0 to 1, at another size: the mean over the area of each cell; float32 (height, width)."""
    return F.interpolate(mask[None, None].float(), size=size, mode="area")[0, 0]


# Settings that read a diffusion schedule; a flow model has none.
_NOT_FOR_FLOW = ("min_snr_gamma", "scale_v_pred_loss_like_noise_pred", "v_pred_like_loss", "debiased_estimation_loss")


def _check_fits(schedule: NoiseSchedule, options: AdvancedSection) -> None:
    kind = schedule.prediction_type
    if kind == "flow":
        for key in _NOT_FOR_FLOW:
            if getattr(options, key):
                raise UserError(
                    f"`{key}` is for models that predict noise or v, and the base model is a flow model; remove it"
                )
        if options.loss_type in ("huber", "smooth_l1") and options.huber_schedule == "snr":
            raise UserError('`huber_schedule = "snr"` does not fit a flow model; set it to constant or exponential')
    if options.scale_v_pred_loss_like_noise_pred and kind != "v_prediction":
        raise UserError(
            "`scale_v_pred_loss_like_noise_pred` is for v-prediction, and the base model predicts noise; remove it"
        )
    if options.v_pred_like_loss and kind != "epsilon":
        raise UserError(
            "`v_pred_like_loss` is for models that predict noise, and this one predicts v already; remove it"
        )
    for key in ("min_timestep", "max_timestep"):
        value = getattr(options, key)
        if value is not None and value > schedule.timesteps:
            raise UserError(f"`{key} = {value}` lies beyond the model's {schedule.timesteps} timesteps; lower it")
