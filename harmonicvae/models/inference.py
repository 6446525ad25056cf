"""What a fitted variational autoencoder computes: codes, decodings, samples and bounds."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from harmonicvae.models import parameters as checks
from harmonicvae.models.inputs import check_codes, check_rows
from harmonicvae.models.objective import draw_code, gaussian_log_likelihood, kl_divergence

#: Rows a forward pass outside training takes at once.
CHUNK_ROWS = 1024
#: Types that results keep; anything else becomes the first.
_KEPT_TYPES = (np.float64, np.float32)


class FittedVAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Inference of :class:`harmonicvae.HarmonicVAE`, from fitted attributes alone.

    Parameters changed after fit change nothing here but ``elbo_samples``, the number of
    draws in :meth:`score_samples`.
    """

    elbo_samples: int
    encoder_: torch.nn.Module
    decoder_: torch.nn.Module
    net_: Any
    seed_: int
    n_features_in_: int
    _n_features_out: int

    def _apply(self, function: Any, X: Any, width: int | None) -> np.ndarray:
        """Run a float64 torch function over chunks of rows; width None means a scalar a row.

        float32 would make a row's result depend on the rows beside it in the chunk.
        """
        device = next(self.encoder_.parameters()).device
        out = np.empty((X.shape[0],) if width is None else (X.shape[0], width))
        with torch.no_grad():
            for start in range(0, X.shape[0], CHUNK_ROWS):
                rows = np.asarray(X[start : start + CHUNK_ROWS])
                x = torch.tensor(rows, device=device, dtype=torch.float64)
                out[start : start + CHUNK_ROWS] = function(x).cpu()
        return out

    def transform(self, X: Any) -> np.ndarray:
        """Return the mean codes μ(x).

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n, latent_dim)
            float32 for float32 arrays and 8-bit images, else float64 (also for lists and
            pandas' nullable columns); computed in float64.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False, dtype=_KEPT_TYPES)
        codes = self._apply(_double(self.encoder_), rows, self._n_features_out)
        return codes.astype(rows.dtype, copy=False)

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Decode codes to mean reconstructions.

        Parameters
        ----------
        X : array-like of shape (n, latent_dim)
            Codes.

        Returns
        -------
        ndarray of shape (n, d)
        """
        check_is_fitted(self)
        codes = check_codes(X, self._n_features_out)
        decoded = self._apply(_double(self.decoder_), codes, self.n_features_in_)
        return decoded.astype(codes.dtype, copy=False)

    def reconstruct(self, X: Any) -> np.ndarray:
        """Encode to the mean code and decode, without any noise.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n, d)
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False, dtype=_KEPT_TYPES)
        decoded = self._apply(_double(self.net_.module_), rows, self.n_features_in_)
        return decoded.astype(rows.dtype, copy=False)

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Decode codes drawn from the prior N(0, I).

        Parameters
        ----------
        n_samples : int ≥ 1, default=1
        random_state : None, int, RandomState or Generator, default=None
            None draws by the estimator's own seed: the same samples at every call.

        Returns
        -------
        ndarray of shape (n_samples, d), float32
            Means of the Gaussian decoder.
        """
        check_is_fitted(self)
        count = checks.check_integer("n_samples", n_samples, 1)
        seed = self.seed_ if random_state is None else checks.resolve_seed(random_state)
        generator = checks.generator(seed, "sample")
        codes = torch.randn(count, self._n_features_out, generator=generator)
        decoded = self._apply(_double(self.decoder_), codes.numpy(), self.n_features_in_)
        return decoded.astype(np.float32)

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the evidence lower bound of every sample.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n,), float64
            E[log N(x; g(z), I)] − KL(N(μ, σ²I) ‖ N(0, I)) in nats, larger is better; the
            constant −(d/2)·log 2π is included.

        Notes
        -----
        The expectation over z is a Monte Carlo mean over ``elbo_samples`` codes in
        antithetic pairs, unbiased for each sample.  All samples share the same noise,
        drawn by the estimator's seed: results do not depend on the order or number of
        rows, and errors between samples are correlated.  No input noise is added.
        """
        check_is_fitted(self)
        rows = check_rows(self, X, reset=False, dtype=_KEPT_TYPES)
        noise = self._score_noise()
        std = self.net_.criterion_.encoder_std
        module: Any = _double(self.net_.module_)

        def elbo(x: torch.Tensor) -> torch.Tensor:
            mean, log_std = module.posterior(x)
            total = x.new_zeros(len(x))
            for row in noise.to(x):
                code = draw_code(mean, std, log_std, row.expand_as(mean))
                total += gaussian_log_likelihood(module.decoder(code), x)
            return total / len(noise) - kl_divergence(mean, std, log_std)

        return self._apply(elbo, rows, None)

    def _score_noise(self) -> torch.Tensor:
        """Return the (elbo_samples, m) noise of :meth:`score_samples`."""
        count = checks.check_integer("elbo_samples", self.elbo_samples, 1)
        generator = checks.generator(self.seed_, "score")
        noise = torch.randn((count + 1) // 2, self._n_features_out, generator=generator)
        return torch.cat([noise, -noise])[:count]

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean evidence lower bound, in nats per sample; larger is better.

        Parameters
        ----------
        X : array-like of shape (n, d)
        y : ignored

        Returns
        -------
        float
        """
        return float(self.score_samples(X).mean())

    def __sklearn_tags__(self) -> Any:
        """Say that float32 and float64 are preserved."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _double(module: torch.nn.Module) -> torch.nn.Module:
    """Return a float64 copy of a module; the trained one stays as it is."""
    return copy.deepcopy(module).double()
