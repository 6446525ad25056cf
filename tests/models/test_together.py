"""Models trained together are those trained one by one, resumable, and independent."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from harmonicvae import names
from harmonicvae.datasets.scaled import ScaledImages
from harmonicvae.exceptions import CollapseWarning, DivergenceError, InputError
from harmonicvae.models import (
    EpochHook,
    HarmonicVAE,
    can_train_together,
    fit_together,
    group_checkpoints,
    groups,
    load_estimator,
    pays_together,
    save_estimator,
    together_groups,
)
from harmonicvae.models.batches import RowBatches
from tests.models.cases import weights

pytestmark = pytest.mark.filterwarnings("ignore::harmonicvae.exceptions.CollapseWarning")

#: Largest difference of a weight, relative to the largest weight of its model, and of a
#: loss, relative to it.  Measured (30 epochs, MKL with AVX-512): 6e-7 in one stack of six
#: models, 0 in stacks of one or two.
TOLERANCE = 5e-6
SHAPES = {"latent_dim": 3, "hidden_dims": (16, 8), "activation": "tanh", "batch_size": 64}
MIX = [
    {"encoder_std": 0.1},
    {"encoder_std": 0.5, "input_noise_std": 1.0, "random_state": 7},
    {"encoder_std": 1.0, "input_noise_std": 0.3, "reconstruction_target": "noisy"},
    {"encoder_std": 0.5, "reproduction_errors": ("squared_std",), "kl_weight": 2.0},
    {"input_noise_std": 0.5, "reproduction_errors": ("shared_noise", "noisy_target")},
    {"reproduction_errors": ("kl_form",), "random_state": 14609714069366804553},
]


def small(**parameters):
    return HarmonicVAE(
        **SHAPES | {"max_epochs": 6, "random_state": 0, "device": "cpu", "lr": 0.01} | parameters
    )


def grid(settings=MIX, **parameters):
    return [small(**parameters | one) for one in settings]


def assert_same(found, wanted, X, tolerance=TOLERANCE):
    """Compare two fitted estimators: weights, history and what they compute."""
    for one, other in zip(found, wanted, strict=True):
        scale = weights(other).abs().max()
        assert float((weights(one) - weights(other)).abs().max() / scale) <= tolerance
        assert list(one.history_) == list(other.history_)
        figures = [vae.history_.drop(columns=names.EPOCH_SECONDS) for vae in (one, other)]
        np.testing.assert_allclose(*figures, rtol=tolerance)
        codes = [vae.transform(X) for vae in (one, other)]
        np.testing.assert_allclose(*codes, rtol=0, atol=10 * tolerance * np.abs(codes[1]).max())
        assert one.score(X) == pytest.approx(other.score(X), rel=10 * tolerance)
        assert (one.seed_, one.n_iter_, one.n_features_in_) == (
            other.seed_,
            other.n_iter_,
            other.n_features_in_,
        )
        assert one.collapse_.active_units == other.collapse_.active_units


def assert_identical(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(weights(one), weights(other))
        columns = [names.EPOCH, names.TRAIN_LOSS, names.TRAIN_RECONSTRUCTION, names.TRAIN_KL]
        pd.testing.assert_frame_equal(one.history_[columns], other.history_[columns])


@pytest.fixture(params=["one_stack", "stacks_of_two", "stacks_of_one"])
def stacking(request, monkeypatch):
    """Every way in which a group may be cut into stacks."""
    limit = {"one_stack": 2**30, "stacks_of_two": 2 * 4 * 64 * 64, "stacks_of_one": 1}
    monkeypatch.setattr(groups, "CPU_BUFFER_BYTES", limit[request.param])


@pytest.fixture(scope="module")
def images():
    """200 images of 30 random bytes."""
    return ScaledImages(np.random.default_rng(0).integers(0, 256, (200, 30), dtype=np.uint8))


@pytest.mark.usefixtures("stacking")
def test_as_one_by_one(digits):
    found, wanted = grid(max_epochs=30), grid(max_epochs=30)
    assert fit_together(found, digits) == [None] * len(MIX)
    assert_same(found, [vae.fit(digits) for vae in wanted], digits)
    initial = [vae.fit(digits) for vae in grid(max_epochs=0)]
    for one, before in zip(found, initial):  # they did learn something
        assert not torch.allclose(weights(one), weights(before), atol=0.01)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("activation", ["sigmoid", "relu", "softplus", "elu", "silu", "gelu"])
def test_every_activation_and_a_learned_spread(digits, activation, learned):
    mix = [{"encoder_std": "learned" if learned else 0.3, "input_noise_std": s} for s in (0, 1)]
    found, wanted = (grid(mix, activation=activation) for _ in range(2))
    fit_together(found, digits)
    assert_same(found, [vae.fit(digits) for vae in wanted], digits)


@pytest.mark.parametrize("batch_size", [64, 200, 1000])
def test_bytes_incomplete_and_short_batches(images, batch_size):
    found, wanted = grid(batch_size=batch_size), grid(batch_size=batch_size)
    fit_together(found, images)
    assert_same(found, [vae.fit(images) for vae in wanted], images)


def test_rows_gathered_at_once_as_on_a_gpu(images, monkeypatch):
    """The data's way on a GPU, taken on the CPU: bytes kept whole, one gather for all models."""
    build = RowBatches.__init__

    def keep_whole(self, X, **options):
        build(self, X, **options)
        self._rows = torch.from_numpy(X.raw)

    wanted = [vae.fit(images) for vae in grid()]
    with monkeypatch.context() as patched:
        patched.setattr(RowBatches, "__init__", keep_whole)
        patched.setattr(RowBatches, "on_device", property(lambda self: True))
        patched.setattr(torch.Tensor, "pin_memory", lambda self: self)
        found = grid()
        fit_together(found, images)
    assert_same(found, wanted, images, tolerance=1e-4)  # bytes are scaled by other roundings


@given(
    stds=st.lists(st.floats(0.05, 2.0), min_size=1, max_size=4),
    noise=st.floats(0.0, 2.0),
    hidden=st.lists(st.integers(1, 9), max_size=2),
    rows=st.integers(1, 40),
    batch=st.integers(1, 40),
    seed=st.integers(0, 2**64 - 1),
)
@settings(max_examples=15)
def test_any_shapes(stds, noise, hidden, rows, batch, seed):
    X = np.random.default_rng(0).uniform(-1, 1, (rows, 5)).astype(np.float32)
    mix = [{"encoder_std": std, "input_noise_std": noise * (i % 2)} for i, std in enumerate(stds)]
    options = {"hidden_dims": hidden, "batch_size": batch, "random_state": seed, "max_epochs": 2}
    found, wanted = grid(mix, **options), grid(mix, **options)
    fit_together(found, X)
    for one, other in zip(found, wanted):
        other.fit(X)
        np.testing.assert_allclose(weights(one), weights(other), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.history_.iloc[:, 1:4], other.history_.iloc[:, 1:4], 1e-4)


def test_the_fitted_estimators_are_complete(digits, tmp_path):
    names_of = [f"pixel{i}" for i in range(64)]
    frame = pd.DataFrame(digits.astype(np.float64), columns=names_of)
    found, wanted = grid(), grid()
    fit_together(found, frame)
    for one, other in zip(found, wanted):
        other.fit(frame)
        assert vars(one).keys() == vars(other).keys()
        assert vars(one.net_).keys() == vars(other.net_).keys()
        assert list(one.feature_names_in_) == names_of
        keys = [vae.net_.history[-1].keys() for vae in (one, other)]
        assert keys[0] == keys[1]
        states = [vae.net_.optimizer_.state_dict() for vae in (one, other)]
        assert states[0]["param_groups"] == states[1]["param_groups"]
        for key, value in states[1]["state"].items():
            assert states[0]["state"][key]["step"] == value["step"]
        assert all(p.untyped_storage().nbytes() == p.nbytes for p in one.net_.module_.parameters())
        loaded = load_estimator(save_estimator(one, tmp_path / str(id(one))))
        np.testing.assert_array_equal(loaded.transform(frame), one.transform(frame))
        again = pickle.loads(pickle.dumps(one))
        np.testing.assert_array_equal(again.transform(frame), one.transform(frame))
        assert clone(one).get_params() == one.get_params()
        np.testing.assert_allclose(one.sample(2), other.sample(2), atol=1e-5)


def test_global_generators_stay_untouched(digits):
    before = torch.get_rng_state()
    fit_together(grid(max_epochs=1), digits)
    assert torch.equal(torch.get_rng_state(), before)


def test_hooks_hear_every_epoch_of_their_model(digits):
    told = [[] for _ in MIX]
    found = grid(max_epochs=3, callbacks=None)
    own = []
    found[1].callbacks = [EpochHook(own.append)]
    fit_together(found, digits, hooks=[rows.append for rows in told])
    for vae, rows in zip(found, told):
        pd.testing.assert_frame_equal(pd.DataFrame(rows), vae.history_)
    assert own == told[1]


def test_unstackable_ones_are_trained_singly_with_their_hooks(digits):
    class Special(HarmonicVAE):
        pass

    special = Special(**small().get_params())
    held_out = small(validation_fraction=0.2)
    told = [[], [], []]
    estimators = [small(), special, held_out]
    fit_together(estimators, digits, hooks=[rows.append for rows in told])
    wanted = [small(), small(), small(validation_fraction=0.2)]
    assert_same(estimators, [vae.fit(digits) for vae in wanted], digits)
    assert [len(rows) for rows in told] == [6, 6, 6]
    assert special.callbacks is None


def test_collapse_warns_at_the_caller(digits):
    with pytest.warns(CollapseWarning) as caught:
        fit_together([small(max_epochs=1, activation="sigmoid", hidden_dims=(8, 8, 8))], digits)
    assert caught[0].filename == __file__


# ---------------------------------------------------------------------- groups


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("latent_dim", 4),
        ("hidden_dims", (16,)),
        ("activation", "relu"),
        ("batch_size", 32),
        ("lr", 0.02),
        ("max_epochs", 7),
        ("encoder_std", "learned"),
    ],
)
def test_what_must_be_equal(parameter, value):
    other = small(**{parameter: value})
    assert not can_train_together(small(), other)
    assert together_groups([small(), other, small(random_state=1)]) == [[0, 2], [1]]


@pytest.mark.parametrize("settings", MIX)
def test_what_may_differ(settings):
    assert can_train_together(small(), small(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"validation_fraction": 0.1},
        {"checkpoint_path": "run.pt"},
        {"callbacks": [("hook", EpochHook(print))]},
    ],
)
def test_what_cannot_be_stacked(settings):
    assert not can_train_together(small(**settings), small(**settings))
    assert together_groups([small(**settings), small(), small(**settings)]) == [[0], [1], [2]]


@pytest.mark.parametrize("n_models", [1, 2, 5, 18])
@pytest.mark.parametrize("n_features", [10, 344, 3072, 12288])
def test_stacks_are_balanced_and_bounded(n_models, n_features):
    size = groups.stack_size(n_models, n_features)
    assert 1 <= size <= n_models
    assert size == 1 or size * 256 * 4 * max(n_features, 256) <= groups.CPU_BUFFER_BYTES
    assert not pays_together(n_models, n_features)


@pytest.mark.parametrize(("n_models", "memory", "pays"), [(18, 2**34, True), (1, 2**34, False)])
def test_grouping_pays_on_a_gpu_that_holds_two(monkeypatch, n_models, memory, pays):
    properties = SimpleNamespace(total_memory=memory)
    monkeypatch.setattr(groups.checks, "check_device", torch.device)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda place: properties)
    assert pays_together(n_models, 3072, device="cuda") == pays
    assert not pays_together(n_models, 3072, device="cpu")
    properties.total_memory = 2**25
    assert not pays_together(n_models, 3072, device="cuda")


# ---------------------------------------------------------------------- checkpoints


class Stop(BaseException):
    """Ends a training as a kill would: no handler for Exception sees it."""


def stop_at(epoch):
    def hook(row):
        if row["epoch"] == epoch:
            raise Stop

    return hook


@pytest.mark.usefixtures("stacking")
@pytest.mark.parametrize("stop_after", [2, 3, 6])
def test_resumed_bit_for_bit(digits, tmp_path, stop_after):
    whole = grid()
    fit_together(whole, digits)
    first = grid()
    hooks = [None] * (len(MIX) - 1) + [stop_at(stop_after)]
    with pytest.raises(Stop):
        fit_together(first, digits, hooks=hooks, checkpoint_dir=tmp_path, checkpoint_seconds=0)
    assert [path.name for path in tmp_path.iterdir()] == [f"epoch-{stop_after - 1:06d}"]
    resumed, told = grid(), []
    hooks = [told.append] + [None] * (len(MIX) - 1)
    fit_together(resumed, digits, hooks=hooks, checkpoint_dir=tmp_path, checkpoint_seconds=0)
    assert_identical(resumed, whole)
    assert [row["epoch"] for row in told] == list(range(stop_after, 7))
    again = grid()  # nothing left to do
    fit_together(again, digits, checkpoint_dir=tmp_path)
    assert_identical(again, whole)


def test_each_file_can_be_continued_singly(digits, tmp_path):
    fit_together(grid(max_epochs=4), digits, checkpoint_dir=tmp_path)
    for index, vae in enumerate(grid()):
        file = tmp_path / "epoch-000004" / f"model-{index:03d}.pt"
        vae.fit(digits, resume_from=file)
        assert vae.n_iter_ == 6
        assert_same([vae], [grid()[index].fit(digits)], digits)


def test_a_file_holds_one_model_only(digits, tmp_path):
    fit_together(grid(), digits, checkpoint_dir=tmp_path / "all")
    small(checkpoint_path=tmp_path / "one.pt").fit(digits)
    alone = (tmp_path / "one.pt").stat().st_size
    file = tmp_path / "all" / "epoch-000006" / "model-000.pt"
    assert file.stat().st_size == pytest.approx(alone, rel=0.05)
    states = [torch.load(path, weights_only=True) for path in (file, tmp_path / "one.pt")]
    assert states[0].keys() == states[1].keys()
    for part in ("order_generator", "noise_generator", "global_generator"):
        assert torch.equal(states[0][part], states[1][part])


def test_writes_are_throttled_and_the_last_epoch_is_written(digits, tmp_path, monkeypatch):
    written = []
    write = group_checkpoints.write_group
    monkeypatch.setattr(
        group_checkpoints,
        "write_group",
        lambda folder, epoch, entries: written.append(epoch) or write(folder, epoch, entries),
    )
    fit_together(grid(), digits, checkpoint_dir=tmp_path, checkpoint_seconds=1e6)
    assert written == [6]
    fit_together(grid(), digits, checkpoint_dir=tmp_path / "b", checkpoint_seconds=0)
    assert written == [6, 1, 2, 3, 4, 5, 6]


SCRIPT = """
import sys, warnings
import numpy as np
import torch
from harmonicvae.models import fit_together
from tests.models.test_together import grid
warnings.simplefilter("ignore")
torch.set_num_threads(int(sys.argv[3]))
X = np.load(sys.argv[1])
vaes = grid(max_epochs=400)
fit_together(vaes, X, checkpoint_dir=sys.argv[2], checkpoint_seconds=0)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_killed_at_any_moment(digits, tmp_path):
    np.save(tmp_path / "X.npy", digits)
    folder = tmp_path / "checkpoint"
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-c", SCRIPT, tmp_path / "X.npy", folder, threads]
    last = 0
    for wait in (0.05, 0.2, 0.4):
        process = subprocess.Popen(command)
        while not folder.is_dir() or (group_checkpoints.newest_checkpoint(folder) is None):
            assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        newest = group_checkpoints.newest_checkpoint(folder)
        states = group_checkpoints.read_group(newest, [str(i) for i in range(len(MIX))])
        epochs = {len(state["history"]) for state in states.values()}
        assert len(epochs) == 1
        assert epochs.pop() >= last
        last = int(newest.name.partition("-")[2])
    done = last + 2
    whole, resumed = grid(max_epochs=done), grid(max_epochs=done)
    fit_together(resumed, digits, checkpoint_dir=folder)
    assert [path.name for path in folder.iterdir()] == [f"epoch-{done:06d}"]
    fit_together(whole, digits)
    assert_identical(resumed, whole)


@pytest.mark.parametrize("moment", ["write", "rename", "remove"])
def test_an_interrupted_write_leaves_a_whole_checkpoint(digits, tmp_path, monkeypatch, moment):
    """The former one before the rename, the new one after it, and never a half."""
    fit_together(grid(max_epochs=2), digits, checkpoint_dir=tmp_path)

    def stop(*arguments, **options):
        raise Stop

    with monkeypatch.context() as patched:
        if moment == "write":
            save = torch.save
            calls = []
            patched.setattr(
                torch, "save", lambda *a: stop() if len(calls) == 3 else calls.append(save(*a))
            )
        elif moment == "rename":
            patched.setattr(os, "rename", stop)
        else:
            patched.setattr(group_checkpoints.shutil, "rmtree", lambda *a, **k: None)
        with pytest.raises(Stop) if moment != "remove" else warnings.catch_warnings():
            fit_together(grid(max_epochs=3), digits, checkpoint_dir=tmp_path)
    newest = group_checkpoints.newest_checkpoint(tmp_path)
    assert newest.name == ("epoch-000003" if moment == "remove" else "epoch-000002")
    resumed, whole = grid(), grid()
    fit_together(resumed, digits, checkpoint_dir=tmp_path)
    fit_together(whole, digits)
    assert_identical(resumed, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000006"]


@pytest.mark.parametrize("file", ["group.json", "model-000.pt"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "empty"])
def test_damage_is_refused(digits, tmp_path, file, damage):
    fit_together(grid(max_epochs=2), digits, checkpoint_dir=tmp_path)
    path = tmp_path / "epoch-000002" / file
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    with pytest.raises(InputError, match=r"delete .*epoch-000002"):
        fit_together(grid(), digits, checkpoint_dir=tmp_path)
    shutil.rmtree(tmp_path / "epoch-000002")
    assert fit_together(grid(), digits, checkpoint_dir=tmp_path) == [None] * len(MIX)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoder_std": 0.2}, "encoder_std was"),
        ({"random_state": 5}, "seed was"),
        ({"max_epochs": 1}, "max_epochs must be >= 2"),
        ({"lr": 0.5}, "lr was"),
    ],
)
def test_another_groups_checkpoint_is_refused(digits, tmp_path, change, reason):
    mix = [{"random_state": 1}, {"random_state": 2}]
    fit_together(grid(mix, max_epochs=2), digits, checkpoint_dir=tmp_path)
    others = [small(**{"max_epochs": 2} | one | change) for one in mix]
    with pytest.raises(InputError, match=f"(?s){reason}.*delete"):
        fit_together(others, digits, checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="X differs"):
        fit_together(grid(mix, max_epochs=2), digits[::-1].copy(), checkpoint_dir=tmp_path)
    with pytest.raises(InputError, match="of other models"):
        fit_together(grid(mix), digits, checkpoint_dir=tmp_path, keys=["a", "b"])
    with pytest.raises(InputError, match="of other models"):
        fit_together(grid(), digits, checkpoint_dir=tmp_path)


def test_keys_not_positions_identify_models(digits, tmp_path):
    keys = [f"σ={index}/2" for index in range(len(MIX))]
    fit_together(grid(max_epochs=3), digits, checkpoint_dir=tmp_path, keys=keys)
    resumed = grid()[::-1]
    fit_together(resumed, digits, checkpoint_dir=tmp_path, keys=keys[::-1])
    assert_same(resumed[::-1], [vae.fit(digits) for vae in grid()], digits)


def test_a_drawn_seed_is_taken_up(digits, tmp_path):
    first, second = ([small(random_state=None, max_epochs=n) for _ in range(2)] for n in (2, 4))
    fit_together(first, digits, checkpoint_dir=tmp_path)
    fit_together(second, digits, checkpoint_dir=tmp_path)
    assert [vae.seed_ for vae in first] == [vae.seed_ for vae in second]
    assert first[0].seed_ != first[1].seed_
    assert_same(
        second, [small(random_state=v.seed_, max_epochs=4).fit(digits) for v in first], digits
    )


def test_several_groups_have_folders_of_their_own(digits, tmp_path):
    mix = [{}, {"latent_dim": 2}, {"encoder_std": 0.1}, {"validation_fraction": 0.2}]
    found = grid(mix, max_epochs=2)
    fit_together(found, digits, checkpoint_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["group-0", "group-1"]
    found = grid(mix)
    fit_together(found, digits, checkpoint_dir=tmp_path)
    assert_same(found, [vae.fit(digits) for vae in grid(mix)], digits)


# ---------------------------------------------------------------------- failures


def diverging():
    """The mix with a model in its middle whose loss becomes infinite in the first epochs."""
    vaes = grid()
    vaes.insert(2, small(encoder_std=1e25))
    return vaes


@pytest.mark.usefixtures("stacking")
def test_a_diverging_model_changes_no_other(digits, tmp_path):
    healthy, mixed = diverging(), diverging()
    healthy[2].encoder_std = 0.5
    fit_together(healthy, digits)
    failures = fit_together(
        mixed, digits, on_error="return", checkpoint_dir=tmp_path, checkpoint_seconds=0
    )
    with pytest.raises(DivergenceError) as alone:
        small(encoder_std=1e25).fit(digits)
    assert [type(failure) for failure in failures] == [
        DivergenceError if index == 2 else type(None) for index in range(len(MIX) + 1)
    ]
    assert str(failures[2]) == str(alone.value)
    assert not hasattr(mixed[2], "encoder_")
    assert_identical(mixed[:2] + mixed[3:], healthy[:2] + healthy[3:])


def test_a_diverged_model_stays_so_when_resumed(digits, tmp_path):
    first, resumed, whole = diverging(), diverging(), diverging()
    for vae in first:
        vae.max_epochs = 3
    told = []
    before = fit_together(first, digits, on_error="return", checkpoint_dir=tmp_path)
    hooks = [told.append if index == 2 else None for index in range(len(first))]
    after = fit_together(resumed, digits, on_error="return", checkpoint_dir=tmp_path, hooks=hooks)
    assert isinstance(after[2], DivergenceError)
    assert str(after[2]) == str(before[2])
    assert told == []
    fit_together(whole, digits, on_error="return")
    assert_identical(resumed[:2] + resumed[3:], whole[:2] + whole[3:])


def test_all_models_diverged(digits, tmp_path):
    for _ in range(2):
        found = grid([{"encoder_std": 1e25}] * 2)
        failures = fit_together(found, digits, on_error="return", checkpoint_dir=tmp_path)
        assert [type(failure) for failure in failures] == [DivergenceError] * 2


def test_the_others_are_fitted_before_a_failure_is_raised(digits):
    found = diverging()
    with pytest.raises(DivergenceError, match="in epoch 1"):
        fit_together(found, digits)
    assert [hasattr(vae, "encoder_") for vae in found] == [i != 2 for i in range(len(found))]


def test_a_failing_hook_ends_its_model_only(digits):
    def hook(row):
        if row["epoch"] == 2:
            raise ConnectionError("no store")

    found, whole = grid(), grid()
    failures = fit_together(
        found, digits, hooks=[hook] + [None] * (len(MIX) - 1), on_error="return"
    )
    assert isinstance(failures[0], ConnectionError)
    assert failures[1:] == [None] * (len(MIX) - 1)
    fit_together(whole, digits)
    assert_identical(found[1:], whole[1:])


def test_ctrl_c_passes_through(digits, tmp_path):
    def hook(row):
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    found = grid()
    with pytest.raises(KeyboardInterrupt):
        fit_together(
            found,
            digits,
            hooks=[hook] + [None] * (len(MIX) - 1),
            on_error="return",
            checkpoint_dir=tmp_path,
            checkpoint_seconds=0,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000002"]
    assert not hasattr(found[0], "encoder_")


def test_invalid_parameters_concern_their_estimator(digits):
    found = [small(), small(encoder_std=-1.0), small(random_state=2)]
    with pytest.raises(InputError, match="encoder_std must be > 0"):
        fit_together(found, digits)
    assert not hasattr(found[0], "encoder_")
    failures = fit_together(found, digits, on_error="return")
    assert [type(failure) for failure in failures] == [type(None), InputError, type(None)]
    assert_same([found[2]], [small(random_state=2).fit(digits)], digits)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"estimators": []}, "at least one"),
        ({"estimators": [1]}, "of HarmonicVAE"),
        ({"estimators": [small()] * 2}, "different objects"),
        ({"hooks": []}, "hooks must be 1 functions"),
        ({"hooks": [1]}, "hooks must be 1 functions"),
        ({"keys": ["a", "b"]}, "keys must be 1 different strings"),
        ({"keys": [1]}, "keys must be 1 different strings"),
        ({"on_error": "ignore"}, "on_error must be one of"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds must be"),
        ({"checkpoint_dir": __file__}, "checkpoint_dir must be a folder"),
        ({"X": np.full((3, 2), np.nan)}, "NaN"),
    ],
)
def test_what_is_refused(digits, options, reason):
    options = {"estimators": [small()], "X": digits} | options
    with pytest.raises(InputError, match=reason):
        fit_together(options.pop("estimators"), options.pop("X"), **options)


def test_a_checkpoint_of_a_newer_format(digits, tmp_path):
    fit_together(grid(max_epochs=1), digits, checkpoint_dir=tmp_path)
    path = tmp_path / "epoch-000001" / "group.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(InputError, match="newer format"):
        fit_together(grid(), digits, checkpoint_dir=tmp_path)


# ---------------------------------------------------------------------- GPU


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["float", "bytes"])
def test_on_a_gpu_as_one_by_one(digits, images, tmp_path, kind):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    X = digits if kind == "float" else images
    found, wanted, resumed = (grid(device="cuda") for _ in range(3))
    fit_together(found, X)
    assert_same(found, [vae.fit(X) for vae in wanted], X, tolerance=1e-4)
    fit_together(grid(device="cuda", max_epochs=2), X, checkpoint_dir=tmp_path)
    fit_together(resumed, X, checkpoint_dir=tmp_path)
    assert_identical(resumed, found)
