"""The linear maps of LipSDP as torch operations on whole blocks, in reused memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harmonicvae.lipschitz.sdp.neuron_problem import NeuronProblem


class NeuronOperators:
    """P and its derivatives, and matrices seen through A = (a_k) and B = (b_k).

    Parameters
    ----------
    problem : NeuronProblem
        The scaled problem.
    per_layer : bool
        One variable a layer instead of one a neuron.
    device : torch.device
        Where the tensors live.

    Notes
    -----
    Large results lie in scratch memory that is named by the caller and overwritten by the
    next call with that name.
    """

    def __init__(self, problem: NeuronProblem, per_layer: bool, device: torch.device) -> None:
        def tensor(array: Any) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float64, device=device)

        self.problem = problem
        self.per_layer = per_layer
        self.device = device
        self.weights = [tensor(weight) for weight in problem.weights]
        self.alpha = tensor(np.concatenate(problem.alphas))
        self.beta = tensor(np.concatenate(problem.betas))
        self.plain = not bool(torch.any(self.alpha != 0))
        self.output = tensor(problem.last.T @ problem.last)
        ends = np.concatenate([[0], np.cumsum(problem.dims)]).tolist()
        self.blocks = [slice(a, b) for a, b in pairwise(ends)]
        self.first = problem.dims[0]
        self.all_hidden = slice(self.first, ends[-1])
        self.layers = [slice(b.start - self.first, b.stop - self.first) for b in self.blocks[1:]]
        self.patterns = [
            scale**2 if per_layer else (0.5 * (high - low)) ** -2.0
            for scale, low, high in zip(problem.scales, problem.alphas, problem.betas)
        ]
        self._ratio = tensor(np.concatenate(self.patterns))
        self._owner = torch.repeat_interleave(
            torch.arange(len(self.layers)), torch.tensor(problem.dims[1:])
        ).to(device)
        self.signs = self._signs()
        flags = tensor(self.signs.astype(float))
        self.signed = torch.clamp(self._summed(flags), max=1.0) if per_layer else flags
        self.objective = torch.cat([flags.new_ones(1), torch.zeros_like(self.signed)])
        self.degree = problem.size + float(self.signed.sum())
        self._scratch: dict[str, Tensor] = {}

    def _signs(self) -> np.ndarray:
        """Return for every neuron whether t ≥ 0 must be imposed; else P ⪰ 0 implies it."""
        signs = np.zeros(len(self.alpha), dtype=bool)
        products = [a * b for a, b in zip(self.problem.alphas, self.problem.betas)]
        for layer, following in zip(self.layers, products[1:]):
            signs[layer] = bool(np.any(following))
        return signs

    def scratch(self, name: str, rows: int, columns: int) -> Tensor:
        """Return the memory of that name, with any content."""
        if name not in self._scratch:
            self._scratch[name] = self.alpha.new_empty(rows, columns)
        return self._scratch[name]

    def square(self, name: str) -> Tensor:
        """Return scratch memory of the size of P."""
        return self.scratch(name, self.problem.size, self.problem.size)

    # --- between variables y = (ρ, one number a group) and neurons ---

    def variables(self, rho: float, t: np.ndarray) -> Tensor:
        """Return y for a ρ and multipliers in the ratios of the patterns."""
        values = torch.as_tensor(t, dtype=torch.float64, device=self.device)
        if self.per_layer:
            firsts = [layer.start for layer in self.layers]
            values = (values / self._ratio)[firsts]
        return torch.cat([values.new_tensor([rho]), values])

    def multipliers(self, y: Tensor) -> Tensor:
        """Return the multiplier of every neuron."""
        return y[1:][self._owner] * self._ratio if self.per_layer else y[1:]

    def gather(self, rho: Tensor, t: Tensor) -> Tensor:
        """Return the adjoint of (ρ, :meth:`multipliers`)."""
        weighted = self._summed(t * self._ratio) if self.per_layer else t
        return torch.cat([rho.reshape(1), weighted])

    def _summed(self, values: Tensor) -> Tensor:
        """Return sums over layers."""
        return values.new_zeros(len(self.layers)).index_add(0, self._owner, values)

    def gather_square(self, inner: Tensor) -> Tensor:
        """Return BᵀMB with t = B·(variables), M of shape (N, N)."""
        if not self.per_layer:
            return inner
        spread = inner.new_zeros(len(inner), len(self.layers))
        spread[torch.arange(len(inner), device=self.device), self._owner] = self._ratio
        return spread.T @ inner @ spread

    # --- P and its derivatives ---

    def pencil(self, y: Tensor, output: bool = True) -> tuple[list[Tensor], list[Tensor]]:
        """Return the blocks of P(y), or of its linear part."""
        t = self.multipliers(y)
        diagonal = [y[0] * torch.eye(self.first, dtype=t.dtype, device=self.device)]
        below = []
        for i, (weight, layer) in enumerate(zip(self.weights, self.layers)):
            own, low, high = t[layer], self.alpha[layer], self.beta[layer]
            below.append(-(own * (low + high))[:, None] * weight)
            if not self.plain:
                diagonal[i] = diagonal[i] + weight.T @ ((2.0 * own * low * high)[:, None] * weight)
            diagonal.append(torch.diag(2.0 * own))
        if output:
            diagonal[-1] = diagonal[-1] - self.output
        return diagonal, below

    def columns(self, matrix: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Return MA and MB for a matrix M with as many columns as P."""
        image = self.scratch("image", len(matrix), len(self.alpha))
        for weight, layer, before in zip(self.weights, self.layers, self.blocks):
            torch.mm(matrix[:, before], weight.T, out=image[:, layer])
        hidden = matrix[:, self.all_hidden]
        with_beta = self.scratch(f"{name} B", *image.shape)
        torch.addcmul(hidden, image, self.beta, value=-1.0, out=with_beta)
        if self.plain:
            return hidden, with_beta
        with_alpha = self.scratch(f"{name} A", *image.shape)
        return torch.addcmul(hidden, image, self.alpha, value=-1.0, out=with_alpha), with_beta

    def rows(self, matrix: Tensor, slopes: Tensor, name: str) -> Tensor:
        """Return AᵀM or BᵀM for the slopes α or β."""
        image = self.scratch(name, len(self.alpha), matrix.shape[1])
        for weight, layer, before in zip(self.weights, self.layers, self.blocks):
            torch.mm(weight, matrix[before], out=image[layer])
        return torch.addcmul(matrix[self.all_hidden], image, slopes[:, None], value=-1.0, out=image)

    def symmetric_rows(self, matrix: Tensor, slopes: Tensor, name: str) -> Tensor:
        """Return AᵀM or BᵀM where that is symmetric, from its lower block triangle."""
        result = self.scratch(name, len(self.alpha), matrix.shape[1])
        hidden = matrix[self.all_hidden]
        for weight, layer, before in zip(self.weights, self.layers, self.blocks):
            lower = result[layer, : layer.stop]
            torch.mm(weight, matrix[before, : layer.stop], out=lower)
            lower.mul_(slopes[layer][:, None]).neg_().add_(hidden[layer, : layer.stop])
            result[: layer.start, layer] = lower[:, : layer.start].T
        return result

    def times_step(
        self, matrix: Tensor, columns: tuple[Tensor, Tensor], dy: Tensor, name: str
    ) -> Tensor:
        """Return M ΔP for the step dy, from M and (MA, MB)."""
        t = self.multipliers(dy)
        result = self.square(name)
        torch.mul(matrix[:, : self.first], dy[0], out=result[:, : self.first])
        hidden = result[:, self.all_hidden]
        torch.add(columns[0], columns[1], out=hidden)
        hidden *= t
        moved = self.scratch("image", *columns[0].shape)
        torch.mul(columns[0], t * self.beta, out=moved)
        if not self.plain:
            moved.addcmul_(columns[1], t * self.alpha)
        for weight, layer, before in zip(self.weights, self.layers, self.blocks):
            result[:, before].addmm_(moved[:, layer], weight, alpha=-1.0)
        return result


@dataclass(frozen=True, eq=False)
class Conjugated:
    """A symmetric matrix M seen through A and B.

    Parameters
    ----------
    columns : pair of Tensor of shape (size, N)
        MA and MB.
    aa, ab, bb : Tensor of shape (N, N)
        AᵀMA, AᵀMB and BᵀMB.
    """

    columns: tuple[Tensor, Tensor]
    aa: Tensor
    ab: Tensor
    bb: Tensor

    @classmethod
    def of(cls, ops: NeuronOperators, matrix: Tensor, name: str) -> Conjugated:
        """Compute the products in the scratch memory of that name."""
        with_alpha, with_beta = ops.columns(matrix, name)
        aa, ab = with_alpha[ops.all_hidden], with_beta[ops.all_hidden]
        if not ops.plain:
            aa = ops.symmetric_rows(with_alpha, ops.alpha, f"{name} AA")
            ab = ops.rows(with_beta, ops.alpha, f"{name} AB")
        bb = ops.symmetric_rows(with_beta, ops.beta, f"{name} BB")
        return cls((with_alpha, with_beta), aa, ab, bb)


@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """A symmetric block-tridiagonal matrix that is multiplied with columns.

    Parameters
    ----------
    diagonal : list of Tensor of shape (n_i, n_i)
    below : list of Tensor of shape (n_{i+1}, n_i)
    blocks : list of slice
        Rows of each diagonal block.
    """

    diagonal: list[Tensor]
    below: list[Tensor]
    blocks: list[slice]

    def __matmul__(self, vector: Tensor) -> Tensor:
        parts = [block @ vector[rows] for block, rows in zip(self.diagonal, self.blocks)]
        for i, link in enumerate(self.below):
            parts[i + 1] = parts[i + 1] + link @ vector[self.blocks[i]]
            parts[i] = parts[i] + link.T @ vector[self.blocks[i + 1]]
        return torch.cat(parts)
