"""The networks: multilayer perceptrons for the encoder mean, its spread and the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from harmonicvae.exceptions import InputError

#: Activations by name.
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}

#: Range of log σ(x) for a learned encoder spread: keeps exp finite in float32.
LOG_STD_RANGE = (-15.0, 15.0)


def check_activation(activation: str) -> None:
    """Refuse an unknown activation.

    Raises
    ------
    InputError
        With those that are known.
    """
    if activation not in ACTIVATIONS:
        raise InputError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}")


def multilayer_perceptron(dims: Sequence[int], activation: str) -> nn.Sequential:
    """Build affine layers with an activation after each but the last.

    Parameters
    ----------
    dims : sequence of int
        Width of the input, of each hidden layer and of the output.
    activation : str
        Key in :data:`ACTIVATIONS`.

    Returns
    -------
    torch.nn.Sequential
        ``len(dims) - 1`` linear layers in torch's default initialisation, drawn
        from the global generator.

    Raises
    ------
    InputError
        If the activation is unknown.

    Examples
    --------
    >>> [type(layer).__name__ for layer in multilayer_perceptron([3, 2, 1], "sigmoid")]
    ['Linear', 'Sigmoid', 'Linear']
    """
    check_activation(activation)
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(dims):
        layers += [nn.Linear(width_in, width_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class GaussianVAE(nn.Module):
    """Encoder and decoder of a variational autoencoder with Gaussian codes.

    Parameters
    ----------
    encoder : torch.nn.Sequential
        x ↦ mean code, (n, d) → (n, m); its last layer is linear, the others are the trunk.
    decoder : torch.nn.Sequential
        Code ↦ mean reconstruction, (n, m) → (n, d).
    learned_std : bool
        Whether the spread σ(x) of the code is a second output of the encoder's trunk.

    Attributes
    ----------
    log_std : torch.nn.Linear or None
        Trunk ↦ log σ(x), for a learned spread only.
    """

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential, learned_std: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        mean: Any = encoder[-1]
        self.log_std = nn.Linear(mean.in_features, mean.out_features) if learned_std else None

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return mean code and, where it is learned, log σ(x); both (n, m)."""
        if self.log_std is None:
            return self.encoder(x), None
        trunk = self.encoder[:-1](x)
        return self.encoder[-1](trunk), self.log_std(trunk).clamp(*LOG_STD_RANGE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction through the mean code, (n, d) → (n, d)."""
        return self.decoder(self.encoder(x))


class VAEModule(GaussianVAE):
    """Variational autoencoder of two multilayer perceptrons.

    Parameters
    ----------
    n_features : int
        Inputs d.
    latent_dim : int
        Latent units m.
    hidden_dims : sequence of int
        Hidden widths of the encoder; the decoder has them in reverse.
    activation : str
        Key in :data:`ACTIVATIONS`.
    learned_std : bool
        Whether the spread σ(x) of the code is a second output of the encoder's trunk.
    """

    def __init__(
        self,
        n_features: int,
        latent_dim: int,
        hidden_dims: Sequence[int],
        activation: str,
        learned_std: bool = False,
    ) -> None:
        hidden = list(hidden_dims)
        super().__init__(
            multilayer_perceptron([n_features, *hidden, latent_dim], activation),
            multilayer_perceptron([latent_dim, *hidden[::-1], n_features], activation),
            learned_std,
        )


class EncoderSpread(nn.Module):
    """Standard deviation σ(x) of the code of a module whose spread is learned.

    Parameters
    ----------
    module : GaussianVAE
        With ``log_std``.
    """

    def __init__(self, module: GaussianVAE) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return σ(x) > 0, (n, d) → (n, m)."""
        log_std = self.module.posterior(x)[1]
        if log_std is None:
            raise InputError("the spread of this module is fixed, not learned")
        return log_std.exp()
