"""Training resumed from a checkpoint is the uninterrupted one, or refused with the reason."""

import numpy as np
import pytest
import torch
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochScoring,
    Freezer,
    Initializer,
    LRScheduler,
    ProgressBar,
)

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.models import EpochHook, HarmonicVAE
from tests.models.cases import weights

pytestmark = pytest.mark.filterwarnings("ignore::harmonicvae.exceptions.CollapseWarning")


def small(**parameters):
    return HarmonicVAE(
        **{"hidden_dims": (8,), "max_epochs": 6, "random_state": 0, "batch_size": 64} | parameters
    )


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("encoder_std", np.float64(0.5)),
        ("latent_dim", np.int64(2)),
        ("hidden_dims", np.array([8])),
        ("lr", np.float32(0.01)),
        ("kl_weight", np.int32(2)),
        ("random_state", np.int64(3)),
        ("reconstruction_target", np.str_("noisy")),
    ],
)
def test_numpy_scalars_of_a_grid(digits, tmp_path, parameter, value):
    options = {parameter: value}
    path = tmp_path / "run.pt"
    small(**options, max_epochs=2, checkpoint_path=path).fit(digits)
    resumed = small(**options).fit(digits, resume_from=path)
    assert torch.equal(weights(resumed), weights(small(**options).fit(digits)))


@pytest.mark.parametrize("seed", [None, "state", "generator"])
def test_a_drawn_seed_splits_as_before(digits, tmp_path, seed):
    def state():
        draw = {"state": np.random.RandomState, "generator": np.random.default_rng}
        return None if seed is None else draw[seed]()

    path = tmp_path / "run.pt"
    options = {"validation_fraction": 0.2}
    first = small(**options, random_state=state(), max_epochs=2, checkpoint_path=path).fit(digits)
    resumed = small(**options, random_state=state()).fit(digits, resume_from=path)
    whole = small(**options, random_state=first.seed_).fit(digits)
    assert torch.equal(weights(resumed), weights(whole))
    np.testing.assert_array_equal(
        resumed.history_[names.VALID_LOSS], whole.history_[names.VALID_LOSS]
    )


class Anneal(Callback):
    """Lower the learning rate every second epoch: a count that only the callback knows."""

    def __init__(self, scale=0.1):
        self.scale = scale
        self.rates = []

    def on_train_begin(self, net, **kwargs):
        self.count_ = 0

    def on_epoch_end(self, net, **kwargs):
        self.count_ += 1
        self.rates.append(net.optimizer_.param_groups[0]["lr"])
        if self.count_ % 2 == 0:
            for group in net.optimizer_.param_groups:
                group["lr"] *= self.scale


SCHEDULES = {
    "step": lambda: LRScheduler("StepLR", step_size=1, gamma=0.5),
    "multi_step": lambda: LRScheduler("MultiStepLR", milestones=[2, 4]),
    "cosine": lambda: LRScheduler("CosineAnnealingLR", T_max=6),
    "warm_restart": lambda: LRScheduler(
        "WarmRestartLR", min_lr=1e-4, max_lr=1e-2, base_period=2, period_mult=1
    ),
    "lambda": lambda: LRScheduler("LambdaLR", lr_lambda=lambda epoch: 0.7**epoch),
    "plateau": lambda: LRScheduler(
        "ReduceLROnPlateau", patience=1, threshold=10.0, threshold_mode="abs"
    ),
    "cyclic": lambda: LRScheduler(
        "CyclicLR", base_lr=1e-4, max_lr=1e-2, step_size_up=5, step_every="batch"
    ),
    "one_cycle": lambda: LRScheduler(
        torch.optim.lr_scheduler.OneCycleLR, max_lr=1e-2, total_steps=24, step_every="batch"
    ),
    "own": Anneal,
    "freezer": lambda: Freezer("encoder*"),
    "initializer": lambda: Initializer("decoder*", fn=torch.nn.init.normal_, at=4),
    "early_stopping": lambda: EarlyStopping(
        patience=3, threshold=1e9, threshold_mode="abs", load_best=True, sink=lambda _: None
    ),
    "scoring": lambda: EpochScoring(
        lambda net, X, y=None: -float(net.history[-1, "train_loss"]), name="score"
    ),
    "progress_bar": lambda: ProgressBar(detect_notebook=False),
}


@pytest.mark.parametrize("stop_after", [2, 3])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.filterwarnings("error::UserWarning:torch.optim")
def test_callbacks_go_on_where_they_were(digits, tmp_path, name, stop_after):
    def fit(source=None, **options):
        vae = small(callbacks=[SCHEDULES[name]()], validation_fraction=0.2, **options)
        return vae.fit(digits, resume_from=source)

    path = tmp_path / "run.pt"
    whole = fit()
    fit(max_epochs=stop_after, checkpoint_path=path)
    resumed = fit(path, checkpoint_path=path)
    assert torch.equal(weights(resumed), weights(whole))
    rates = [vae.net_.optimizer_.param_groups[0]["lr"] for vae in (resumed, whole)]
    assert rates[0] == rates[1]
    for column in ("event_lr", "score", "score_best", "train_loss_best", "valid_loss"):
        if column in whole.net_.history[0]:
            assert resumed.net_.history[:, column] == whole.net_.history[:, column]
    again = fit(path)  # nothing left to do
    assert torch.equal(weights(again), weights(whole))
    assert again.n_iter_ == whole.n_iter_


def test_a_stopped_run_stays_stopped_and_can_go_on_without_the_stopper(digits, tmp_path):
    path = tmp_path / "run.pt"
    stopper = EarlyStopping(
        patience=2, threshold=1e9, threshold_mode="abs", load_best=True, sink=lambda _: None
    )
    options = {"validation_fraction": 0.2}
    stopped = small(**options, callbacks=[stopper], checkpoint_path=path).fit(digits)
    assert stopped.n_iter_ == 3
    again = small(**options, callbacks=[stopper]).fit(digits, resume_from=path)
    assert again.n_iter_ == 3
    assert torch.equal(weights(again), weights(stopped))
    longer = small(**options).fit(digits, resume_from=path)
    assert torch.equal(weights(longer), weights(small(**options).fit(digits)))


class HasMemory(Callback):
    def on_train_begin(self, net, **kwargs):
        self.seen_ = 0

    def on_epoch_end(self, net, **kwargs):
        self.seen_ += 1

    def state_dict(self):
        return {"seen": self.seen_}

    def load_state_dict(self, state):
        self.seen_ = state["seen"] + 100


class KeepsAnObject(Callback):
    def on_epoch_end(self, net, **kwargs):
        self.kept_ = object()


def test_callbacks_with_state_dict_use_it(digits, tmp_path):
    path = tmp_path / "run.pt"
    small(callbacks=[HasMemory()], max_epochs=2, checkpoint_path=path).fit(digits)
    vae = small(callbacks=[HasMemory()]).fit(digits, resume_from=path)
    assert dict(vae.net_.callbacks_)["HasMemory"].seen_ == 106


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (KeepsAnObject, KeepsAnObject, "kept_.*state_dict"),
        (SCHEDULES["step"], None, "LRScheduler.*both"),
        (None, SCHEDULES["step"], "LRScheduler.*both"),
        (SCHEDULES["step"], lambda: ("LRScheduler", EarlyStopping()), "LRScheduler.*does not fit"),
    ],
)
def test_what_cannot_go_on_is_refused(digits, tmp_path, before, after, message):
    path = tmp_path / "run.pt"
    first, second = ([] if build is None else [build()] for build in (before, after))
    options = {"validation_fraction": 0.2}
    small(**options, callbacks=first, max_epochs=2, checkpoint_path=path).fit(digits)
    with pytest.raises(InputError, match=message):
        small(**options, callbacks=second).fit(digits, resume_from=path)


def test_loggers_may_come_and_go(digits, tmp_path):
    path, rows = tmp_path / "run.pt", []
    small(callbacks=[KeepsAnObject()], max_epochs=2, checkpoint_path=path).fit(digits)
    small(callbacks=[EpochHook(rows.append)]).fit(digits, resume_from=path)
    assert [row["epoch"] for row in rows] == [3, 4, 5, 6]


def test_fewer_epochs_than_trained_are_refused(digits, tmp_path):
    path = tmp_path / "run.pt"
    small(max_epochs=3, checkpoint_path=path).fit(digits)
    with pytest.raises(InputError, match=r"max_epochs must be >= 3, .* got 2"):
        small(max_epochs=2).fit(digits, resume_from=path)


def test_history_keeps_every_column(digits, tmp_path):
    path = tmp_path / "run.pt"
    first = small(max_epochs=2, checkpoint_path=path).fit(digits, validation_data=digits[:20])
    resumed = small().fit(digits, resume_from=path)
    losses = resumed.history_[names.VALID_LOSS]
    np.testing.assert_array_equal(losses[:2], first.history_[names.VALID_LOSS])
    assert losses[2:].isna().all()
    assert len(losses) == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("optimizer"),
        lambda state: state["context"].pop("seed"),
        lambda state: state.update(history=3),
        lambda state: state.update(module={"x": torch.zeros(1)}),
        lambda state: state.update(noise_generator=torch.zeros(1, dtype=torch.uint8)),
        lambda state: state["context"].update(seed="x"),
    ],
)
def test_damaged_checkpoints_are_refused(digits, tmp_path, damage):
    path = tmp_path / "run.pt"
    small(max_epochs=2, checkpoint_path=path).fit(digits)
    state = torch.load(path, weights_only=True)
    damage(state)
    torch.save(state, path)
    with pytest.raises(InputError):
        small().fit(digits, resume_from=path)


@pytest.mark.parametrize("kind", ["a folder", "below a file", "no path"])
def test_a_checkpoint_that_cannot_be_written_is_refused_before_training(digits, tmp_path, kind):
    (tmp_path / "file").write_text("")
    paths = {"a folder": tmp_path, "below a file": tmp_path / "file" / "run.pt", "no path": 5}
    with pytest.raises(InputError, match="checkpoint_path must be a file that can be written"):
        small(checkpoint_path=paths[kind]).fit(digits)
