"""Wide first and last layers replaced by narrow ones that say the same about the map.

A last layer h ↦ Wh + b with more outputs than inputs has its values in an affine subspace: in
an orthonormal basis of it (W = QR) the map is h ↦ (Rh + Qᵀb, ‖b − QQᵀb‖), with all inner
products as before.  A first layer z ↦ Wz + b with more inputs than outputs sees z in the span of
its rows only: W = RᵀQᵀ, and Qᵀz ~ N(Qᵀμ, σ²I) where z ~ N(μ, σ²I).  Values' and derivatives'
norms, and with them every spectrum, are unchanged up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def shortened(module: nn.Module) -> tuple[nn.Module, Tensor | None]:
    """Return an equivalent module with narrow ends, and the basis of its input.

    Parameters
    ----------
    module : Module
        In float64.  Only an ``nn.Sequential`` that starts or ends with ``nn.Linear`` itself
        and has no hooks is replaced.

    Returns
    -------
    module : Module
    basis : Tensor of shape (r, m) or None
        Orthonormal rows; the new module takes basis·z.  None: it takes z.

    Examples
    --------
    >>> wide = nn.Sequential(nn.Linear(2, 9), nn.Tanh(), nn.Linear(9, 50)).double()
    >>> narrow, basis = shortened(wide)
    >>> narrow[-1].out_features, basis is None
    (10, True)
    >>> z = torch.ones(1, 2, dtype=torch.float64)
    >>> torch.allclose(wide(z).norm(), narrow(z).norm())
    True
    """
    hooked = module._forward_hooks or module._forward_pre_hooks
    if type(module) is not nn.Sequential or not len(module) or hooked:
        return module, None
    layers: list[nn.Module] = list(module)
    last = _plain(layers[-1])
    if last is not None and last.out_features > last.in_features + 1:
        layers[-1] = _fewer_outputs(last)
    first, basis = _plain(layers[0]), None
    if first is not None and first.in_features > first.out_features:
        layers[0], basis = _fewer_inputs(first)
    return nn.Sequential(*layers), basis


def _plain(layer: nn.Module) -> nn.Linear | None:
    """Return a layer that is linear and does nothing else, None for any other."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return layer if type(layer) is nn.Linear and not hooked else None


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return the layer h ↦ weight·h + bias."""
    layer = nn.utils.skip_init(
        nn.Linear, weight.shape[1], weight.shape[0], dtype=weight.dtype, device=weight.device
    )
    layer.weight, layer.bias = (nn.Parameter(part, requires_grad=False) for part in (weight, bias))
    return layer


def _bias(layer: nn.Linear) -> Tensor:
    """Return the bias, zeros where there is none."""
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()


def _fewer_outputs(layer: nn.Linear) -> nn.Linear:
    """Return the layer in a basis of its image, with one more output for what is constant."""
    basis, triangle = torch.linalg.qr(layer.weight.detach())
    bias = _bias(layer)
    inside = basis.T @ bias
    outside = torch.linalg.vector_norm(bias - basis @ inside)
    row = triangle.new_zeros(1, triangle.shape[1])
    return _linear(torch.cat([triangle, row]), torch.cat([inside, outside[None]]))


def _fewer_inputs(layer: nn.Linear) -> tuple[nn.Linear, Tensor]:
    """Return the layer on coordinates in the span of its rows, and their basis."""
    basis, triangle = torch.linalg.qr(layer.weight.detach().T)
    return _linear(triangle.T.contiguous(), _bias(layer)), basis.T.contiguous()
