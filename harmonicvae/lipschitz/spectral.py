"""The norm product: spectral norms of the layers times the largest slopes."""

from __future__ import annotations

from harmonicvae.lipschitz.base import Candidate, LipschitzMethod, Task, layer_norms


class NormProduct(LipschitzMethod):
    """Π ‖W_i‖₂ · Π max(|α_i|, |β_i|), each factor and step rounded upwards.

    Notes
    -----
    Layers without a nonlinear activation between them are multiplied first, so that a
    linear network gets its exact constant, up to rounding. Cost O(Σ out·in·min(out, in)),
    and for convolutions O(n·w²), n outputs and w the band of the Gram matrix
    (:func:`harmonicvae.sparse_norms.sparse_norm`).

    References
    ----------
    C. Szegedy et al., "Intriguing properties of neural networks", arXiv 1312.6199,
    section 4.3.

    Examples
    --------
    >>> from harmonicvae.network import LayeredNetwork
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> round(NormProduct().bound(network).value, 9)
    1.5
    """

    name = "norm_product"
    takes_sparse = True

    def _bound(self, task: Task) -> Candidate:
        return layer_norms(task)
