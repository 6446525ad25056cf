"""In-memory mini-batches: one permutation an epoch, rows gathered straight into a buffer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from harmonicvae.datasets.scaled import ScaledImages

#: Share of free device memory that a data set may take to be kept there whole.
DEVICE_MEMORY_SHARE = 0.5


class RowDataset(Dataset):
    """Rows of an array as the data set that skorch's callbacks see.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32, or ScaledImages
        Samples; 8-bit images stay 8-bit until a batch is drawn.
    """

    def __init__(self, X: np.ndarray | ScaledImages) -> None:
        self.X = X

    def __len__(self) -> int:
        return self.X.shape[0]

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        rows = self.X[index]
        return rows, rows


def permutation(n_rows: int, generator: torch.Generator) -> torch.Tensor:
    """Return the order of the rows in one epoch, drawn by the model's own generator."""
    return torch.randperm(n_rows, generator=generator)


class RowBatches:
    """Iterate over float32 mini-batches of rows on a device.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32, or ScaledImages
        Samples.
    batch_size : int
        Rows a batch; more than n means n.
    device : torch.device
        Where batches are needed.  On a GPU the data set is moved there once if it
        takes at most half of the free memory.
    generator : torch.Generator or None
        CPU generator of the permutations; None keeps the rows in order.
    drop_last : bool
        Whether an incomplete last batch is dropped.
    reuse_buffer : bool, default=True
        Whether all batches share one buffer (a batch is valid until the next one).

    Notes
    -----
    Cost: one pass over the rows an epoch, no per-sample Python work.  Extra memory:
    one batch, beside the data set itself; 8-bit images are converted per batch.
    """

    def __init__(
        self,
        X: np.ndarray | ScaledImages,
        *,
        batch_size: int,
        device: torch.device,
        generator: torch.Generator | None,
        drop_last: bool,
        reuse_buffer: bool = True,
    ) -> None:
        self.n_rows, self.n_features = X.shape
        self.batch_size = min(batch_size, self.n_rows)
        self.device = device
        self.generator = generator
        self.drop_last = drop_last
        self.reuse_buffer = reuse_buffer
        self._images = X if isinstance(X, ScaledImages) else None
        self._rows = None if self._images is not None else torch.from_numpy(np.asarray(X))
        if device.type == "cuda":
            self._move_to_device()

    def _move_to_device(self) -> None:
        """Keep the whole data set on the GPU where it fits."""
        stored = self._images.raw if self._images is not None else self._rows
        assert stored is not None
        free, _ = torch.cuda.mem_get_info(self.device)
        if stored.nbytes <= DEVICE_MEMORY_SHARE * free:
            self._rows = torch.as_tensor(np.array(stored)).to(self.device)

    def __len__(self) -> int:
        """Return the number of batches an epoch."""
        full, rest = divmod(self.n_rows, self.batch_size)
        return full + (0 if self.drop_last or rest == 0 else 1)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (batch, batch): skorch expects samples and target, here the same."""
        order = (
            torch.arange(self.n_rows)
            if self.generator is None
            else permutation(self.n_rows, self.generator)
        )
        buffer = torch.empty(self.batch_size, self.n_features) if self.reuse_buffer else None
        if self._rows is not None:
            order = order.to(self._rows.device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            rows = self.gather(order[start : start + self.batch_size], buffer)
            yield rows, rows

    @property
    def on_device(self) -> bool:
        """Whether the whole data set lies on a GPU, where one kernel gathers rows."""
        return self._rows is not None and self._rows.device.type != "cpu"

    def gather(self, indices: torch.Tensor, buffer: torch.Tensor | None = None) -> torch.Tensor:
        """Return the rows as float32 on the device.

        Parameters
        ----------
        indices : Tensor of int64, shape (b,)
            Rows; of any shape where :attr:`on_device`.
        buffer : Tensor of shape (≥ b, d), float32, or None
            Where to write them on the CPU; None allocates.

        Returns
        -------
        Tensor of shape (b, d)
            The buffer's first b rows, where it was used.
        """
        if self._rows is not None and self._rows.dtype == torch.uint8:
            return self._rows[indices].to(torch.float32).div_(127.5).sub_(1.0)
        if self._rows is not None and self._rows.device.type != "cpu":
            return self._rows[indices]
        out = torch.empty(len(indices), self.n_features) if buffer is None else buffer
        out = out[: len(indices)]
        if self._rows is not None:
            torch.index_select(self._rows, 0, indices, out=out)
        else:
            assert self._images is not None
            self._images.take(indices.numpy(), out=out.numpy())
        return out.to(self.device)
