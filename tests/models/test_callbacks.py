"""Any skorch callback can be passed: a table of them, what they see, and how they stop."""

import os
import pickle
import signal

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    Freezer,
    GradientNormClipping,
    LoadInitState,
    LRScheduler,
    ParamMapper,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
    TrainEndCheckpoint,
)

from harmonicvae.exceptions import InputError
from harmonicvae.models import EpochHook, HarmonicVAE

pytestmark = pytest.mark.filterwarnings("ignore::harmonicvae.exceptions.CollapseWarning")


def small(**parameters):
    return HarmonicVAE(
        **{"hidden_dims": (8,), "max_epochs": 4, "random_state": 0, "batch_size": 64} | parameters
    )


def reconstruction_error(net, X, y=None):
    return mean_squared_error(np.asarray(X.X), net.predict(X))


def scored(net, X, y=None):
    return float(torch.as_tensor(net.predict(X)).square().mean())


def silent(*_):
    pass


#: Callback by name, with a function (net, folder) that must hold after four epochs.
CALLBACKS = {
    "checkpoint": (
        lambda folder: Checkpoint(dirname=folder),
        lambda net, folder: (folder / "params.pt").exists() and (folder / "history.json").exists(),
    ),
    "checkpoint_of_train_loss": (
        lambda folder: Checkpoint(
            monitor="train_loss_best",
            f_params="{last_epoch[epoch]}_{last_batch[valid_batch_size]}.pt",
            dirname=folder,
        ),
        lambda net, folder: any(folder.iterdir()),
    ),
    "train_end_checkpoint": (
        lambda folder: TrainEndCheckpoint(dirname=folder),
        lambda net, folder: (folder / "train_end_params.pt").exists(),
    ),
    "load_init_state": (
        lambda folder: LoadInitState(Checkpoint(dirname=folder)),
        lambda net, folder: dict(net.callbacks_)["LoadInitState"].did_load_,
    ),
    "early_stopping": (
        lambda folder: EarlyStopping(load_best=True, sink=silent),
        lambda net, folder: dict(net.callbacks_)["EarlyStopping"].best_epoch_ > 0,
    ),
    "epoch_scoring": (
        lambda folder: EpochScoring(reconstruction_error, name="error"),
        lambda net, folder: len(net.history[:, "error"]) == 4,
    ),
    "epoch_scoring_on_train": (
        lambda folder: EpochScoring(scored, name="error", on_train=True),
        lambda net, folder: len(net.history[:, "error"]) == 4,
    ),
    "epoch_scoring_by_name": (
        lambda folder: EpochScoring("neg_mean_squared_error", name="error", lower_is_better=False),
        lambda net, folder: max(net.history[:, "error"]) < 0,
    ),
    "batch_scoring": (
        lambda folder: BatchScoring(scored, name="error"),
        lambda net, folder: len(net.history[:, "error"]) == 4,
    ),
    "batch_scoring_on_train": (
        lambda folder: BatchScoring(scored, name="error", on_train=True, use_caching=False),
        lambda net, folder: len(net.history[-1, "batches", :3, "error"]) == 3,
    ),
    "passthrough_scoring": (
        lambda folder: PassthroughScoring("train_loss", on_train=True),
        lambda net, folder: len(net.history[:, "train_loss"]) == 4,
    ),
    "lr_by_epoch": (
        lambda folder: LRScheduler("StepLR", step_size=1, gamma=0.5),
        lambda net, folder: net.history[:, "event_lr"] == [1e-3, 5e-4, 2.5e-4, 1.25e-4],
    ),
    "lr_by_batch": (
        lambda folder: LRScheduler(
            "CyclicLR", base_lr=1e-4, max_lr=1e-2, step_size_up=4, step_every="batch"
        ),
        lambda net, folder: len(set(net.history[-1, "batches", :3, "event_lr"])) == 3,
    ),
    "gradient_clipping": (
        lambda folder: GradientNormClipping(1e-3),
        lambda net, folder: max(p.grad.norm() for p in net.module_.parameters()) <= 1.001e-3,
    ),
    "freezer": (
        lambda folder: Freezer("encoder*"),
        lambda net, folder: not net.module_.encoder[0].weight.requires_grad,
    ),
    "param_mapper": (
        lambda folder: ParamMapper("decoder*", torch.nn.init.zeros_, at=4),
        lambda net, folder: net.module_.decoder[0].weight.abs().max() < 0.01,
    ),
    "progress_bar": (
        lambda folder: ProgressBar(detect_notebook=False),
        lambda net, folder: len(net.history) == 4,
    ),
    "print_log": (
        lambda folder: PrintLog(sink=silent),
        lambda net, folder: len(net.history) == 4,
    ),
    "epoch_timer": (
        lambda folder: EpochTimer(),
        lambda net, folder: min(net.history[:, "dur"]) >= 0,
    ),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_skorch_callbacks(digits, tmp_path, name):
    build, holds = CALLBACKS[name]
    vae = small(validation_fraction=0.2, callbacks=[build(str(tmp_path))]).fit(digits)
    assert holds(vae.net_, tmp_path)
    assert vae.transform(digits).shape == (300, 2)
    copy = pickle.loads(pickle.dumps(vae))
    np.testing.assert_array_equal(copy.transform(digits), vae.transform(digits))


def test_cached_scores_of_held_out_rows_are_those_of_predict(digits):
    callbacks = [
        EpochScoring(reconstruction_error, name="cached"),
        EpochScoring(reconstruction_error, name="anew", use_caching=False),
        EpochScoring("neg_mean_squared_error", name="by_name"),
    ]
    history = small(validation_fraction=0.2, callbacks=callbacks).fit(digits).net_.history
    np.testing.assert_allclose(history[:, "cached"], history[:, "anew"], rtol=1e-6)
    np.testing.assert_allclose(history[:, "cached"], np.negative(history[:, "by_name"]), rtol=1e-6)


def test_training_y_pred_is_the_reconstruction_of_the_loss(digits):
    """With nearly no encoder noise the loss is ‖x − y_pred‖² + KL, so y_pred must give it."""
    seen = []

    class Collect(Callback):
        def on_batch_end(self, net, batch=None, y_pred=None, training=None, **step):
            if training:
                squared = (batch[1] - y_pred).square().sum(1).mean().item()
                seen.append((squared, step["terms"][1].item(), y_pred.requires_grad))

    small(callbacks=[Collect()]).fit(digits)
    assert len(seen) == 4 * 4
    for squared, recorded, tracks in seen:
        assert squared == pytest.approx(recorded, rel=1e-5)
        assert not tracks


def test_history_has_a_batch_row_without_listeners(digits):
    history = small(validation_fraction=0.2).fit(digits).net_.history
    for epoch in range(4):
        rows = history[epoch, "batches"]
        assert [sorted(row) for row in rows] == [
            ["train_batch_size", "train_loss"],
            ["valid_batch_size", "valid_loss"],
        ]
        assert rows[0]["train_loss"] == history[epoch, "train_loss"]
        assert [rows[0]["train_batch_size"], rows[1]["valid_batch_size"]] == [192, 60]


def test_callbacks_that_share_another_still_do(digits, tmp_path):
    checkpoint = TrainEndCheckpoint(dirname=str(tmp_path))
    callbacks = [checkpoint, LoadInitState(checkpoint)]
    first = small(callbacks=callbacks).fit(digits)
    second = small(callbacks=callbacks).fit(digits)
    assert (first.n_iter_, second.n_iter_) == (4, 8)
    assert not hasattr(checkpoint, "checkpoint_")  # parameters stay as they are


def test_classes_and_named_callbacks(digits):
    rows = []
    named = ("mine", EpochHook(rows.append))
    vae = small(callbacks=[EpochTimer, named, ("timer", EpochTimer)]).fit(digits)
    assert [name for name, _ in vae.net_.callbacks_] == ["EpochTimer", "mine", "timer"]
    assert len(rows) == 4


@pytest.mark.parametrize(
    "callbacks",
    [
        EarlyStopping(),
        EarlyStopping,
        "disable",
        {"timer": EpochTimer()},
        [print],
        ("timer", EpochTimer()),
        [("timer", EpochTimer()), ("timer", EpochTimer())],
        [(1, EpochTimer())],
        [int],
    ],
)
def test_what_is_no_list_of_callbacks_is_refused(digits, callbacks):
    with pytest.raises(InputError, match="callbacks must"):
        small(callbacks=callbacks).fit(digits)


# ------------------------------------------------------------------------ interrupts


class InterruptedByTheUser(Callback):
    def on_epoch_end(self, net, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10**6):
            pass


class PassesTheInterruptOn(Callback):
    def on_epoch_end(self, net, **kwargs):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(10**6):
                pass
        except KeyboardInterrupt:
            raise


class Asks(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


class AsksWithAWord(Callback):
    def on_epoch_end(self, net, **kwargs):
        self.stop(net)

    def stop(self, net):
        if len(net.history) == 2:
            raise KeyboardInterrupt("enough")


@pytest.mark.parametrize("callback", [InterruptedByTheUser, PassesTheInterruptOn])
def test_ctrl_c_in_a_callback_is_passed_on(digits, callback):
    with pytest.raises(KeyboardInterrupt):
        small(callbacks=[callback()]).fit(digits)


@pytest.mark.parametrize("callback", [Asks, AsksWithAWord])
def test_a_callback_may_ask_to_stop(digits, callback):
    assert small(callbacks=[callback()]).fit(digits).n_iter_ == 2
