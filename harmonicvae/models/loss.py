"""The training loss as a torch module: the objective's terms with the noise drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from harmonicvae.models.objective import (
    draw_code,
    kl_divergence,
    reproduction_kl,
    squared_error_sum,
)


class StudyLoss(nn.Module):
    """Training loss ‖x − g(z)‖² + w·KL, the mean over a batch, one draw of z a sample.

    Parameters
    ----------
    encoder_std : float or None
        Fixed σ_enc > 0, or None where the module learns it.
    input_noise_std : float
        σ_N ≥ 0 of the Gaussian noise added to the encoder's input in training.
    noisy_target : bool
        Whether the reconstruction target is the noisy input.
    kl_weight : float
        w > 0.
    switches : frozenset of str
        Names in :data:`harmonicvae.reproduction.TRAINING_ERRORS`.

    Notes
    -----
    With w = 1 this is the study's loss, up to a constant the negative ELBO of a Gaussian
    decoder of variance ½; half the loss with w = 2 is that of unit variance.  The switch
    "kl_form" takes Σ(σ² + μ² − log σ − ½) for KL, which for fixed σ is 2·KL plus a
    constant: it doubles the weight of the KL.
    """

    def __init__(
        self,
        encoder_std: float | None,
        input_noise_std: float,
        noisy_target: bool,
        kl_weight: float,
        switches: frozenset[str],
    ) -> None:
        super().__init__()
        self.encoder_std = encoder_std
        self.input_noise_std = input_noise_std
        self.noisy_target = noisy_target
        self.kl_weight = kl_weight
        self.switches = switches
        self.kl = reproduction_kl if "kl_form" in switches else kl_divergence

    def forward(
        self, module: Any, x: torch.Tensor, generator: torch.Generator, *, training: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return loss, ‖x − g(z)‖² and KL, scalar means over the batch, and g(z), (n, d)."""
        inputs = self._add_noise(x, generator) if training and self.input_noise_std else x
        mean, log_std = module.posterior(inputs)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        squared = "squared_std" in self.switches
        code = draw_code(mean, self.encoder_std, log_std, noise, squared_std=squared)
        target = inputs if self.noisy_target else x
        output = module.decoder(code)
        squared_error = squared_error_sum(output, target) / x.shape[0]
        kl = self.kl(mean, self.encoder_std, log_std).mean()
        return squared_error + self.kl_weight * kl, squared_error, kl, output

    def _add_noise(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return x plus Gaussian noise, drawn per sample unless "shared_noise" is on."""
        shape = (1, x.shape[1]) if "shared_noise" in self.switches else x.shape
        noise = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
        return torch.add(x, noise, alpha=self.input_noise_std)
