"""Proofs of products: of layer norms, and of the bounds of consecutive parts of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.chain import BlockChain
from harmonicvae.lipschitz.lmi import LARGEST_EXPONENT, Multipliers
from harmonicvae.lipschitz.proofs import (
    ChainProof,
    ChainProposal,
    real_array,
    whole_numbers,
)
from harmonicvae.rounding import product_up, scale_up


@dataclass(frozen=True)
class LayerNorms(ChainProposal):
    """What the norm product proposes: a bound on the norm of each scaled matrix.

    Parameters
    ----------
    norms : tuple of float
        As from :meth:`harmonicvae.lipschitz.chain.BlockChain.layer_norms`.
    """

    norms: tuple[float, ...]

    kind: ClassVar[str] = "norm_product"

    def prove_chain(self, chain: BlockChain) -> ChainProof | None:
        """Prove each norm, and multiply with the largest slope of each hidden layer."""
        norms = tuple(float(norm) for norm in self.norms)
        if not all(0.0 <= norm < math.inf for norm in norms) or not chain.norms_hold(norms):
            return None
        content = {
            "norms": list(chain.true_norms(norms)),
            "exponents": [-block.exponent for block in chain.blocks],
        }
        return ChainProof(chain.norm_product(norms), content)

    @classmethod
    def proved_value(cls, content: Mapping[str, Any], chain: BlockChain) -> float:
        """Return the product of the norms if all are proved, else ``inf``."""
        norms, exponents = read_norms(content, len(chain.blocks))
        own = tuple(
            scale_up(norm, -exponent - block.exponent)
            for norm, exponent, block in zip(norms, exponents, chain.blocks)
        )
        if not chain.true_norms_hold(own):
            return math.inf
        return product_up([*chain.largest_slopes, *norms], -sum(exponents))


def read_norms(
    content: Mapping[str, Any], blocks: int
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Read norms and exponents from a certificate.

    Parameters
    ----------
    content : mapping
        With ``norms`` and ``exponents``: norms[i] bounds the norm of block i, the product of
        the network's original matrices, times 2**exponents[i].
    blocks : int
        Number of blocks.

    Returns
    -------
    norms : tuple of float
    exponents : tuple of int

    Raises
    ------
    InputError
        If an entry is damaged.
    """
    norms = real_array(content["norms"], "norms")
    exponents = whole_numbers(content["exponents"], "exponents", LARGEST_EXPONENT)
    if norms.shape != (blocks,) or len(exponents) != blocks:
        raise InputError(f"norms and exponents of the certificate must be {blocks}")
    if not all(norms >= 0.0):
        raise InputError("norms of the certificate must be >= 0")
    return tuple(norms.tolist()), exponents


@dataclass(frozen=True)
class Split(ChainProposal):
    """Multipliers of consecutive parts of a network, whose bounds are multiplied.

    Parameters
    ----------
    parts : tuple of Multipliers
        One for each part; without multipliers for a part of a single block.
    lengths : tuple of int
        Number of blocks of each part, ≥ 1; together all blocks of the chain.

    Notes
    -----
    The bound is the product of the parts' bounds and, for each hidden layer between two
    parts, of its largest slope. Each product is rounded upwards.
    """

    parts: tuple[Multipliers, ...]
    lengths: tuple[int, ...]

    kind: ClassVar[str] = "product"

    def prove_chain(self, chain: BlockChain) -> ChainProof | None:
        """Prove the bound of each part and multiply."""
        if len(self.parts) != len(self.lengths):
            raise InputError(f"{len(self.parts)} parts need as many lengths")
        proofs = []
        for proposal, part in zip(self.parts, chain_parts(chain, self.lengths)):
            proof = proposal.prove_chain(part)
            if proof is None:
                return None
            proofs.append(proof)
        content = {
            "lengths": [int(length) for length in self.lengths],
            "parts": [proof.content for proof in proofs],
        }
        value = multiplied(chain, self.lengths, [proof.value for proof in proofs])
        return ChainProof(value, content, max(proof.inflation for proof in proofs))

    @classmethod
    def proved_value(cls, content: Mapping[str, Any], chain: BlockChain) -> float:
        """Return the product of the parts' bounds if all are proved, else ``inf``."""
        parts, lengths = read_parts(content)
        chains = chain_parts(chain, lengths)
        values = (Multipliers.proved_value(part, one) for part, one in zip(parts, chains))
        return multiplied(chain, lengths, list(values))


def read_parts(content: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], tuple[int, ...]]:
    """Read the parts of a product and their lengths from a certificate.

    Parameters
    ----------
    content : mapping
        With ``lengths`` and ``parts``, each part as :func:`read_multipliers` takes it.

    Returns
    -------
    parts : list of mapping
    lengths : tuple of int

    Raises
    ------
    InputError
        If an entry is damaged.
    """
    parts, lengths = content["parts"], whole_numbers(content["lengths"], "lengths", 2**31)
    if not isinstance(parts, (list, tuple)) or len(parts) != len(lengths):
        raise InputError(f"parts of the certificate must be {len(lengths)}")
    if not all(isinstance(part, Mapping) for part in parts):
        raise InputError("parts of the certificate must be mappings")
    return list(parts), lengths


def chain_parts(chain: BlockChain, lengths: Sequence[int]) -> Iterator[BlockChain]:
    """Cut a chain into consecutive parts.

    Raises
    ------
    InputError
        If the lengths are not ≥ 1 or do not sum to the number of blocks.
    """
    if any(length < 1 for length in lengths) or sum(lengths) != len(chain.blocks):
        raise InputError(
            f"lengths of the parts must be >= 1 and sum to {len(chain.blocks)} blocks, "
            f"got {tuple(lengths)}"
        )
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return (chain.part(end - length, end) for end, length in zip(ends, lengths))


def junctions(lengths: Sequence[int]) -> list[int]:
    """Return the hidden layers of a chain that lie between its parts.

    Examples
    --------
    >>> junctions([2, 1, 3])
    [1, 2]
    """
    return [sum(lengths[: i + 1]) - 1 for i in range(len(lengths) - 1)]


def multiplied(chain: BlockChain, lengths: Sequence[int], values: Sequence[float]) -> float:
    """Return the product of the parts' bounds and the slopes between them, rounded upwards."""
    slopes = [chain.largest_slopes[i] for i in junctions(lengths)]
    return product_up([*values, *slopes])
