"""Maximum-damage attacks through other libraries, on the objective of ours.

Every rival maximises F(δ) = ‖g(p(x+δ)) − g(p(x))‖₂ over ‖δ‖₂ ≤ C and returns proposals of
shape (n, proposals, d).  :meth:`Target.judge` projects and evaluates them in float64, in the
same way for every method; it shares nothing with the attacks but the exact projection.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import NonlinearConstraint, OptimizeResult, minimize
from torch import Tensor, nn

from harmonicvae.attacks.projections import make_feasible

#: Most rows that a library is given at once; as in our attacks.
MAX_BATCH = 512


@dataclass(frozen=True)
class Budget:
    """What a search may spend on one image: gradient evaluations and seconds."""

    n_restarts: int = 10
    n_steps: int = 100
    seconds: float = float("inf")
    seed: int = 0

    @property
    def evaluations(self) -> int:
        """Gradient evaluations for each image."""
        return self.n_restarts * self.n_steps


class Response(nn.Module):
    """g∘p on rows, in eval mode; counts the rows of which a gradient is taken."""

    def __init__(self, encode: nn.Module, decode: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        pair = copy.deepcopy(nn.Sequential(encode, decode))
        self.pair = pair.to(dtype).eval().requires_grad_(False)
        self.gradients = 0
        self.eval()

    def forward(self, rows: Tensor) -> Tensor:
        if rows.requires_grad and torch.is_grad_enabled():
            self.gradients += len(rows)
        return self.pair(rows).flatten(1)


class Target:
    """The attacked pair, the inputs and the radius; float32 and float64 copies of the pair."""

    def __init__(self, encode: nn.Module, decode: nn.Module, x: np.ndarray, radius: float) -> None:
        self.encode, self.decode = encode, decode
        self.x = torch.tensor(np.asarray(x), dtype=torch.float64)
        self.radius = float(radius)
        self.single = Response(encode, decode, torch.float32)
        self.double = Response(encode, decode, torch.float64)
        with torch.no_grad():
            self.clean = self.double(self.x)

    @property
    def gradients(self) -> int:
        """Rows of which a gradient was taken, in either precision."""
        return self.single.gradients + self.double.gradients

    def first(self, count: int) -> Target:
        """Return the same target with fewer images."""
        return Target(self.encode, self.decode, self.x[:count].numpy(), self.radius)

    def judge(self, proposals: Tensor) -> np.ndarray:
        """Return the largest float64 damage among the projected proposals of each image."""
        x, best = self.x[:, None], torch.zeros(len(self.x), dtype=torch.float64)
        delta = make_feasible(proposals.double(), x, self.radius, "l2")
        with torch.no_grad():
            for k in range(delta.shape[1]):
                change = self.double(self.x + delta[:, k]) - self.clean
                best = torch.maximum(best, torch.linalg.vector_norm(change, dim=1))
        return best.numpy()


def missing(*modules: str) -> str:
    """Return what to install for the given modules, or "" if all can be imported."""
    packages = {"foolbox": "foolbox", "art": "adversarial-robustness-toolbox"}
    for name in modules:
        try:
            import_module(name)
        except ImportError as error:
            return f"{error}; pip install {packages[name]}"
    return ""


def _tiled(target: Target, budget: Budget) -> tuple[Tensor, Tensor]:
    """Return inputs and clean reconstructions, one row for each image and restart."""
    repeat = partial(torch.repeat_interleave, repeats=budget.n_restarts, dim=0)
    return repeat(target.x.float()), repeat(target.clean.float())


def _proposals(target: Target, attacked: Tensor) -> Tensor:
    """Return attacked rows minus inputs as (images, restarts, d)."""
    moved = attacked.double().unflatten(0, (len(target.x), -1))
    return moved - target.x[:, None]


# ------------------------------------------------------------------------------ foolbox


def foolbox_pgd(
    target: Target, budget: Budget, step: float = 0.025, *, adam: bool = False
) -> Tensor:
    """Foolbox's ℓ2 PGD with the damage as its loss, from random points of the ball.

    ``step`` is relative to the radius; 0.025 is foolbox's default.
    """
    import eagerpy as ep
    import foolbox

    class Maximise:
        def get_loss_fn(self, model, labels):
            def loss(rows: ep.Tensor) -> ep.Tensor:
                change = model(rows).raw - self.reference
                return ep.astensor(torch.linalg.vector_norm(change, dim=1).sum())

            return loss

    name = "L2AdamProjectedGradientDescentAttack" if adam else "L2ProjectedGradientDescentAttack"
    kind = type("MaximumDamage", (Maximise, getattr(foolbox.attacks, name)), {})
    search = kind(rel_stepsize=step, steps=budget.n_steps, random_start=True)
    model = foolbox.PyTorchModel(target.single, bounds=(-torch.inf, torch.inf), device="cpu")
    rows, clean = _tiled(target, budget)
    attacked = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(budget.seed)
        for block, reference in zip(rows.split(MAX_BATCH), clean.split(MAX_BATCH)):
            search.reference = reference
            labels = torch.zeros(len(block), dtype=torch.int64)
            criterion = foolbox.criteria.Misclassification(labels)
            attacked.append(search.run(model, block, criterion, epsilon=target.radius).detach())
    return _proposals(target, torch.cat(attacked))


# ---------------------------------------------------------------------------------- ART


class DamageLoss(nn.Module):
    """Sum over rows of the distance from the clean reconstruction, which ART calls the label."""

    def forward(self, output: Tensor, clean: Tensor) -> Tensor:
        return torch.linalg.vector_norm(output - clean, dim=1).sum()


def art_pgd(
    target: Target, budget: Budget, step: float = 1 / 3, *, decay: float | None = None
) -> Tensor:
    """ART's PGD with the damage as its loss, from random points of the ball.

    ``step`` is relative to the radius; 1/3 is the ratio of ART's defaults.  The restarts
    are rows of one batch: ART's own keep what changes the argmax, which says nothing here.
    """
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    rows, clean = _tiled(target, budget)
    classifier = PyTorchClassifier(
        model=target.single,
        loss=DamageLoss(),
        input_shape=(rows.shape[1],),
        nb_classes=clean.shape[1],
        device_type="cpu",
    )
    search = ProjectedGradientDescentPyTorch(
        classifier,
        norm=2,
        eps=target.radius,
        eps_step=step * target.radius,
        decay=decay,
        max_iter=budget.n_steps,
        num_random_init=1,
        batch_size=MAX_BATCH,
        verbose=False,
    )
    state = np.random.get_state()  # noqa: NPY002 (ART draws from the global generator)
    np.random.seed(budget.seed)  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            attacked = search.generate(rows.numpy(), clean.numpy())
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return _proposals(target, torch.from_numpy(attacked))


# -------------------------------------------------------------------------------- SciPy


class _Spent(Exception):
    """The budget of one image is used up."""


class _Ascent:
    """−F in units of its value at the first start, on the unit ball, for one image."""

    def __init__(self, target: Target, image: int, budget: Budget) -> None:
        self.respond, self.radius = target.double, target.radius
        self.x, self.clean = target.x[image], target.clean[image]
        self.left = budget.evaluations
        self.deadline = time.perf_counter() + budget.seconds
        self.scale = 1.0
        self.best, self.best_value = torch.zeros_like(self.x), -1.0

    def damage(self, u: Tensor) -> Tensor:
        change = self.respond((self.x + self.radius * u)[None])[0] - self.clean
        return torch.linalg.vector_norm(change)

    def value(self, u: np.ndarray) -> float:
        with torch.no_grad():
            return -float(self.damage(torch.from_numpy(u))) / self.scale

    def slope(self, u: np.ndarray) -> np.ndarray:
        self.keep(u)
        if self.left == 0 or time.perf_counter() > self.deadline:
            raise _Spent
        self.left -= 1
        leaf = torch.tensor(u, requires_grad=True)
        (gradient,) = torch.autograd.grad(self.damage(leaf), leaf)
        return -gradient.numpy() / self.scale

    def keep(self, u: np.ndarray) -> None:
        """Remember an iterate, put back into the ball, if it is the best so far."""
        inside = u / max(1.0, float(np.linalg.norm(u)))
        value = -self.value(inside) * self.scale
        if value > self.best_value:
            self.best, self.best_value = torch.tensor(inside), value


def _slsqp(ascent: _Ascent, start: np.ndarray, n_steps: int) -> OptimizeResult:
    ball = {"type": "ineq", "fun": lambda u: 1.0 - u @ u, "jac": lambda u: -2.0 * u}
    options = {"maxiter": n_steps, "ftol": 1e-9}
    return minimize(
        ascent.value, start, jac=ascent.slope, method="SLSQP", constraints=ball, options=options
    )


def _trust_constr(ascent: _Ascent, start: np.ndarray, n_steps: int) -> OptimizeResult:
    ball = NonlinearConstraint(
        lambda u: u @ u,
        -np.inf,
        1.0,
        jac=lambda u: 2.0 * u[None],
        hess=lambda u, v: 2.0 * v[0] * sparse.eye_array(len(u), format="csr"),
    )
    return minimize(
        ascent.value,
        start,
        jac=ascent.slope,
        method="trust-constr",
        constraints=ball,
        options={"maxiter": n_steps},
    )


def scipy_search(target: Target, budget: Budget, method: str = "SLSQP") -> Tensor:
    """SciPy's constrained solvers, image by image, from random points until the budget is spent.

    In float64; the best of all iterates is kept, and values without gradient are free.
    """
    solve = {"SLSQP": _slsqp, "trust-constr": _trust_constr}[method]
    found = []
    for image in range(len(target.x)):
        source = np.random.default_rng([budget.seed, image])
        ascent = _Ascent(target, image, budget)
        try:
            while True:
                start = source.normal(size=target.x.shape[1])
                start *= 0.9 / np.linalg.norm(start)
                ascent.scale = max(-ascent.value(start) * ascent.scale, 1e-300)
                ascent.keep(solve(ascent, start, budget.n_steps).x)
        except _Spent:
            pass
        found.append(target.radius * ascent.best)
    return torch.stack(found)[:, None]


Search = Callable[[Target, Budget], Tensor]

#: Rivals by name, with the module each needs.
RIVALS: dict[str, tuple[str, Search]] = {
    "foolbox pgd 0.025": ("foolbox", foolbox_pgd),
    "foolbox pgd 0.1": ("foolbox", partial(foolbox_pgd, step=0.1)),
    "foolbox pgd 0.5": ("foolbox", partial(foolbox_pgd, step=0.5)),
    "foolbox pgd 2": ("foolbox", partial(foolbox_pgd, step=2.0)),
    "foolbox adam 0.025": ("foolbox", partial(foolbox_pgd, adam=True)),
    "foolbox adam 0.1": ("foolbox", partial(foolbox_pgd, step=0.1, adam=True)),
    "art pgd 0.025": ("art", partial(art_pgd, step=0.025)),
    "art pgd 0.333": ("art", art_pgd),
    "art momentum 0.1": ("art", partial(art_pgd, step=0.1, decay=0.9)),
    "scipy slsqp": ("scipy", scipy_search),
    "scipy trust-constr": ("scipy", partial(scipy_search, method="trust-constr")),
}
