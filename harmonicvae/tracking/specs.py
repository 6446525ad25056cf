"""What is to be trained, on what, and where it is logged: plain values that cross processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from harmonicvae import names
from harmonicvae.datasets import load_dataset
from harmonicvae.exceptions import InputError
from harmonicvae.models import ConvHarmonicVAE, HarmonicVAE

#: Networks of a study's models: multilayer perceptrons or convolutions.
MODELS = ("mlp", "conv")


def short(number: float) -> str:
    """Return the shortest text that reads back as the same number.

    Examples
    --------
    >>> short(1.0), short(0.1234567)
    ('1', '0.1234567')
    """
    text = f"{number:g}"
    return text if float(text) == number else repr(float(number))


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A data set by name.

    Parameters
    ----------
    name : str
        Key in ``harmonicvae.datasets.DATASETS``.
    data_dir : str or None
        Folder of the files.
    options : dict
        Further arguments of the loader.
    """

    name: str
    data_dir: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return it as text, for a tag."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> DataSpec:
        """Read :meth:`to_json`.

        Examples
        --------
        >>> DataSpec.from_json(DataSpec(name="sinc").to_json()).name
        'sinc'
        """
        return cls(**json.loads(text))

    def load(self, split: str) -> Any:
        """Return the Bunch of one split."""
        return load_dataset(self.name, split, data_dir=self.data_dir, **self.options)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model of a study: its data set, noise levels, seed and network.

    Parameters
    ----------
    dataset : str
        Name of the data set.
    encoder_std : float or "learned"
        σ_enc.
    input_noise_std : float
        σ_N.
    seed : int
        In [0, 2**64).
    epochs, latent_dim, batch_size, lr, kl_weight, reproduction_errors
        Parameters of :class:`harmonicvae.HarmonicVAE`.
    hidden_dims, activation
        The same, of the model "mlp" only.
    model : {"mlp", "conv"}, default="mlp"
        :class:`harmonicvae.HarmonicVAE`, or :class:`harmonicvae.ConvHarmonicVAE` with its
        default channels, kernels and activation.

    Raises
    ------
    InputError
        If ``model`` is another.
    """

    dataset: str
    encoder_std: float | str
    input_noise_std: float
    seed: int
    epochs: int
    latent_dim: int
    batch_size: int = 256
    lr: float = 1e-3
    kl_weight: float = 1.0
    hidden_dims: tuple[int, ...] = (256, 256, 256)
    activation: str = "sigmoid"
    reproduction_errors: tuple[str, ...] = ()
    model: str = "mlp"

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise InputError(f"model must be one of {list(MODELS)}, got {self.model!r}")

    @property
    def name(self) -> str:
        """Identifier inside a study; that of a convolutional model says so.

        Examples
        --------
        >>> ModelSpec(dataset="sinc", encoder_std=0.5, input_noise_std=0.0, seed=7,
        ...           epochs=1, latent_dim=1).name
        'sinc-e0.5-n0-s7'
        """
        std = self.encoder_std if isinstance(self.encoder_std, str) else short(self.encoder_std)
        kind = "" if self.model == "mlp" else f"{self.model}-"
        return f"{self.dataset}-{kind}e{std}-n{short(self.input_noise_std)}-s{self.seed}"

    @property
    def alias(self) -> str:
        """Alias of the registered version: the name in letters that MLflow allows.

        Examples
        --------
        >>> ModelSpec(dataset="sinc", encoder_std=0.5, input_noise_std=0.0, seed=7,
        ...           epochs=1, latent_dim=1).alias
        'e0_5-n0-s7'
        """
        return self.name.removeprefix(f"{self.dataset}-").replace(".", "_").replace("+", "")

    @property
    def registered_name(self) -> str:
        """Name of the registered model: one for each data set."""
        return f"{names.REGISTERED_PREFIX}-{self.dataset}"

    def parameters(self) -> dict[str, Any]:
        """Return the values logged as MLflow params."""
        network = self._network()
        return {
            names.MODEL: self.name,
            names.DATASET: self.dataset,
            names.ENCODER_STD: self.encoder_std,
            names.INPUT_NOISE_STD: self.input_noise_std,
            names.SEED: self.seed,
            names.EPOCHS: self.epochs,
            "latent_dim": self.latent_dim,
            **{key: list(v) if isinstance(v, tuple) else v for key, v in network.items()},
            "batch_size": self.batch_size,
            "lr": self.lr,
            "kl_weight": self.kl_weight,
            "reproduction_errors": ",".join(self.reproduction_errors) or "none",
        }

    def _network(self) -> dict[str, Any]:
        """Return the parameters that say what the network is."""
        if self.model == "mlp":
            return {"hidden_dims": self.hidden_dims, "activation": self.activation}
        defaults = ConvHarmonicVAE().get_params(deep=False)
        return {key: defaults[key] for key in ("channels", "kernel_size", "stride", "activation")}

    def estimator(
        self, image_shape: tuple[int, ...] | None = None, **options: Any
    ) -> HarmonicVAE | ConvHarmonicVAE:
        """Return an unfitted estimator.

        Parameters
        ----------
        image_shape : tuple of int or None, default=None
            ``image_shape`` of the data's Bunch; only convolutions use it. Of two numbers
            (points, values) it is a curve: the values are the channels of a column of points.
        **options
            Further parameters of the estimator.

        Returns
        -------
        HarmonicVAE or ConvHarmonicVAE

        Examples
        --------
        >>> spec = ModelSpec(dataset="sinc", encoder_std=0.5, input_noise_std=0.0, seed=7,
        ...                  epochs=1, latent_dim=1, model="conv")
        >>> spec.name, spec.estimator((172, 2)).image_shape
        ('sinc-conv-e0.5-n0-s7', (172, 1, 2))
        """
        shared = {
            "latent_dim": self.latent_dim,
            "encoder_std": self.encoder_std,
            "input_noise_std": self.input_noise_std,
            "max_epochs": self.epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "kl_weight": self.kl_weight,
            "random_state": self.seed,
            "reproduction_errors": self.reproduction_errors,
        }
        parameters: dict[str, Any] = shared | self._network() | options
        if self.model == "mlp":
            return HarmonicVAE(**parameters)
        if image_shape is not None and len(image_shape) == 2:
            image_shape = (image_shape[0], 1, image_shape[1])
        return ConvHarmonicVAE(image_shape=image_shape, **parameters)


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """Where results go: an MLflow store, an experiment and the run above all others.

    Parameters
    ----------
    tracking_uri : str
        MLflow tracking and registry store.
    experiment_id : str
        Experiment of all runs.
    experiment : str
        Its name.
    parent_run_id : str or None
        Run under which the models' runs are nested.
    """

    tracking_uri: str
    experiment_id: str
    experiment: str = ""
    parent_run_id: str | None = None
