"""Training: what is computed, how it stops, and how it is resumed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler

from harmonicvae import names
from harmonicvae.datasets.scaled import ScaledImages
from harmonicvae.exceptions import DivergenceError, InputError
from harmonicvae.models import EpochHook, HarmonicVAE, load_estimator, save_estimator
from harmonicvae.models.batches import RowBatches
from harmonicvae.models.loss import StudyLoss
from tests.models.cases import weights

pytestmark = pytest.mark.filterwarnings("ignore::harmonicvae.exceptions.CollapseWarning")


def small(**parameters):
    return HarmonicVAE(
        **{"hidden_dims": (8,), "max_epochs": 4, "random_state": 0, "batch_size": 64} | parameters
    )


# --------------------------------------------------------------------- reference loop


def reference_fit(vae, X):
    """The plainest loop with the same numbers: one gradient step a batch, written out."""
    from harmonicvae.models import parameters
    from harmonicvae.models.modules import VAEModule

    seed = vae.random_state
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = VAEModule(X.shape[1], vae.latent_dim, list(vae.hidden_dims), vae.activation)
    optimizer = torch.optim.Adam(module.parameters(), lr=vae.lr)
    order_generator = parameters.generator(seed, "order")
    noise = parameters.generator(seed, "noise")
    X = torch.from_numpy(X)
    losses = []
    for _ in range(vae.max_epochs):
        order, epoch = torch.randperm(len(X), generator=order_generator), []
        for step in range(len(X) // vae.batch_size):
            x = X[order[step * vae.batch_size : (step + 1) * vae.batch_size]]
            noisy = x
            if vae.input_noise_std:
                noisy = x + vae.input_noise_std * torch.randn(x.shape, generator=noise)
            mu = module.encoder(noisy)
            z = mu + vae.encoder_std * torch.randn(mu.shape, generator=noise)
            target = noisy if vae.reconstruction_target == "noisy" else x
            var = vae.encoder_std**2
            kl = 0.5 * (var + mu**2 - 1) - math.log(vae.encoder_std)
            squared_error = ((module.decoder(z) - target) ** 2).sum(1)
            loss = (squared_error + vae.kl_weight * kl.sum(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            epoch.append(loss.item())
        losses.append(np.mean(epoch))
    return module, losses


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"input_noise_std": 0.7, "kl_weight": 3.0},
        {"input_noise_std": 0.7, "reconstruction_target": "noisy", "encoder_std": 0.1},
    ],
)
def test_fit_is_the_plain_loop(digits, parameters):
    vae = small(**parameters).fit(digits)
    module, losses = reference_fit(small(**parameters), digits)
    reference = torch.cat([value.flatten() for value in module.state_dict().values()])
    torch.testing.assert_close(weights(vae), reference, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vae.history_[names.TRAIN_LOSS], losses, rtol=1e-5)


# ------------------------------------------------------------------------------ score


def test_elbo_of_a_linear_model_is_the_closed_form(digits):
    """For linear g: E‖x − g(z)‖² = ‖x − g(μ)‖² + σ²‖W‖_F², so the ELBO is known exactly."""
    vae = small(hidden_dims=(), latent_dim=3, encoder_std=0.6, elbo_samples=2000).fit(digits)
    X = digits[:20].astype(np.float64)
    mean = vae.transform(X)
    weight = vae.decoder_[0].weight.detach().double().numpy()
    squared = ((X - vae.reconstruct(X)) ** 2).sum(1) + 0.36 * (weight**2).sum()
    kl = 0.5 * (mean**2 + 0.36 - 1).sum(1) - 3 * math.log(0.6)
    expected = -0.5 * squared - 32 * math.log(2 * math.pi) - kl
    # antithetic pairs have equal ‖Wε‖²: 1,000 draws of ½σ²‖Wε‖², variance ½σ⁴‖WᵀW‖_F²
    standard_error = 0.36 * np.linalg.norm(weight.T @ weight) / math.sqrt(2 * 1000)
    np.testing.assert_allclose(vae.score_samples(X), expected, rtol=1e-9, atol=5 * standard_error)
    assert vae.score(X) == pytest.approx(vae.score_samples(X).mean())


def test_score_is_larger_for_the_training_data_than_for_noise(digits):
    vae = small(max_epochs=30).fit(digits)
    assert vae.score(digits) > vae.score(np.random.default_rng(0).normal(size=digits.shape) * 2)


def test_samples_are_decodings_of_the_prior(digits):
    vae = small().fit(digits)
    assert vae.sample(5).shape == (5, 64)
    np.testing.assert_array_equal(vae.sample(5), vae.sample(5))
    assert not np.array_equal(vae.sample(5, random_state=1), vae.sample(5, random_state=2))


# -------------------------------------------------------------------- switches of old


def loss_terms(switches, noisy_target=False, input_noise_std=0.0, encoder_std=0.5, kl_weight=1.0):
    criterion = StudyLoss(
        encoder_std, input_noise_std, noisy_target, kl_weight, frozenset(switches)
    )
    recorded = {}

    class Identity:
        def posterior(self, x):
            recorded["inputs"] = x
            return x, None

        def decoder(self, z):
            recorded["codes"] = z
            return z

    x = torch.arange(12.0).reshape(4, 3)
    generator = torch.Generator().manual_seed(0)
    loss, squared, kl, _ = criterion(Identity(), x, generator, training=True)
    return x, recorded, loss.item(), squared.item(), kl.item()


def test_squared_std_scales_the_code_noise_by_the_std():
    x, right, *_ = loss_terms(())
    _, wrong, *_ = loss_terms(("squared_std",))
    torch.testing.assert_close(wrong["codes"] - x, 0.5 * (right["codes"] - x))


def test_shared_noise_is_one_vector_for_the_batch():
    x, shared, *_ = loss_terms(("shared_noise",), input_noise_std=1.0)
    _, own, *_ = loss_terms((), input_noise_std=1.0)
    assert (shared["inputs"] - x).var(0).max() < 1e-10
    assert (own["inputs"] - x).var(0).min() > 1e-3


def test_kl_form_doubles_the_weight_of_the_kl_up_to_a_constant():
    _, _, right, squared, kl = loss_terms((), kl_weight=2.0)
    assert right == pytest.approx(squared + 2 * kl, rel=1e-6)
    _, _, wrong, *_ = loss_terms(("kl_form",))
    # per latent unit: (σ² + μ² − log σ − ½) − 2·(½(σ² + μ² − 1) − log σ) = ½ + log σ
    assert wrong == pytest.approx(right + 3 * (0.5 + math.log(0.5)), rel=1e-5)


def test_noisy_target_changes_the_target(digits):
    _, _, _, clean, _ = loss_terms((), input_noise_std=2.0)
    _, _, _, noisy, _ = loss_terms((), noisy_target=True, input_noise_std=2.0)
    assert clean > 3 * noisy
    by_switch = small(input_noise_std=1.0, reproduction_errors=("noisy_target",)).fit(digits)
    by_parameter = small(input_noise_std=1.0, reconstruction_target="noisy").fit(digits)
    assert torch.equal(weights(by_switch), weights(by_parameter))


def test_each_switch_changes_training(digits):
    plain = weights(small(input_noise_std=0.5).fit(digits))
    for switch in ("squared_std", "noisy_target", "shared_noise", "kl_form"):
        changed = weights(small(input_noise_std=0.5, reproduction_errors=(switch,)).fit(digits))
        assert not torch.equal(plain, changed), switch


# ------------------------------------------------------------- stopping and resuming


@pytest.mark.parametrize("stop_after", [1, 2, 3])
@pytest.mark.parametrize("std", [0.5, "learned"])
def test_resumed_training_gives_the_uninterrupted_weights(digits, tmp_path, stop_after, std):
    path = tmp_path / "run.pt"
    options = {"input_noise_std": 0.3, "validation_fraction": 0.2, "encoder_std": std}
    whole = small(**options).fit(digits)
    small(**options, max_epochs=stop_after, checkpoint_path=path).fit(digits)
    resumed = small(**options).fit(digits, resume_from=path)
    assert torch.equal(weights(resumed), weights(whole))
    np.testing.assert_array_equal(
        resumed.history_[names.TRAIN_LOSS], whole.history_[names.TRAIN_LOSS]
    )
    np.testing.assert_array_equal(
        resumed.history_[names.VALID_LOSS], whole.history_[names.VALID_LOSS]
    )
    assert resumed.n_iter_ == 4


def test_resume_with_a_drawn_seed_continues_it(digits, tmp_path):
    path = tmp_path / "run.pt"
    first = small(random_state=None, max_epochs=2, checkpoint_path=path).fit(digits)
    resumed = small(random_state=None).fit(digits, resume_from=path)
    assert resumed.seed_ == first.seed_
    whole = small(random_state=first.seed_).fit(digits)
    assert torch.equal(weights(resumed), weights(whole))


def test_an_interrupted_fit_leaves_its_last_checkpoint(digits, tmp_path):
    path = tmp_path / "run.pt"

    def interrupt(row):
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    options = {"checkpoint_path": path, "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        small(**options, callbacks=[EpochHook(interrupt)]).fit(digits)
    assert [item.name for item in tmp_path.iterdir()] == ["run.pt"]
    resumed = small().fit(digits, resume_from=path)
    assert torch.equal(weights(resumed), weights(small().fit(digits)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_std": 0.7}, "encoder_std was 0.5, is now 0.7"),
        ({"random_state": 1}, "seed was 0, is now 1"),
        ({"hidden_dims": (9,)}, "hidden_dims"),
    ],
)
def test_resume_refuses_another_model(digits, tmp_path, change, message):
    path = tmp_path / "run.pt"
    small(checkpoint_path=path).fit(digits)
    with pytest.raises(InputError, match=message):
        small(**change).fit(digits, resume_from=path)
    with pytest.raises(InputError, match="X differs"):
        small().fit(digits[::-1].copy(), resume_from=path)


def test_resume_refuses_what_is_no_checkpoint(digits, tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        small().fit(digits, resume_from=tmp_path / "absent.pt")
    whole = tmp_path / "run.pt"
    small(checkpoint_path=whole).fit(digits)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(InputError, match="not a readable checkpoint"):
        small().fit(digits, resume_from=cut)


def test_early_stopping_ends_training_and_keeps_the_estimator(digits):
    stopper = EarlyStopping(monitor="valid_loss", patience=2, threshold=1e9, threshold_mode="abs")
    vae = small(max_epochs=50, validation_fraction=0.2, callbacks=[stopper]).fit(digits)
    assert vae.n_iter_ < 10
    assert vae.transform(digits).shape == (300, 2)
    assert stopper.misses_ == 0  # parameters stay untouched


def test_the_users_interrupt_in_a_callback_is_passed_on(digits):
    def interrupted(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(callbacks=[EpochHook(interrupted)]).fit(digits)


class CountBatches(Callback):
    def initialize(self):
        self.batches_, self.distinct_ = 0, set()
        return self

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        self.batches_ += training
        self.distinct_.add(batch[0].data_ptr())


def test_skorch_callbacks_see_what_they_expect(digits):
    scoring = EpochScoring(
        lambda net, X, y=None: float(np.mean(net.predict(X))), name="mean_output", use_caching=False
    )
    schedule = LRScheduler(policy="StepLR", step_size=1, gamma=0.1)
    vae = small(callbacks=[scoring, schedule, CountBatches()], validation_fraction=0.1).fit(digits)
    history = vae.net_.history
    assert len(history[:, "mean_output"]) == 4
    assert vae.net_.optimizer_.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.1**4)
    assert dict(vae.net_.callbacks_)["CountBatches"].batches_ == 4 * 4
    assert history[0, "batches", 0, "train_loss"] > 0


def test_listening_to_batches_does_not_change_the_result(digits):
    listened = small(callbacks=[CountBatches()]).fit(digits)
    assert torch.equal(weights(listened), weights(small().fit(digits)))


@pytest.mark.parametrize("lr", [1e18])
def test_divergence_says_what_to_try(digits, lr):
    with pytest.raises(DivergenceError, match="smaller lr"):
        small(lr=lr, activation="relu", max_epochs=30).fit(digits)


# ---------------------------------------------------------------- batches and storage


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    batch=st.integers(1, 50),
    drop=st.booleans(),
    images=st.booleans(),
    shuffled=st.booleans(),
)
def test_batches_are_each_row_once(rows, batch, drop, images, shuffled):
    raw = np.random.default_rng(rows).integers(0, 256, (rows, 3), dtype=np.uint8)
    X = ScaledImages(raw) if images else np.asarray(ScaledImages(raw))
    generator = torch.Generator().manual_seed(0) if shuffled else None
    batches = RowBatches(
        X, batch_size=batch, device=torch.device("cpu"), generator=generator, drop_last=drop
    )
    seen = [x.clone().numpy() for x, _ in batches]
    assert len(seen) == len(batches) > 0
    size = min(rows, batch)
    assert sum(map(len, seen)) == (rows // size * size if drop else rows)
    whole = np.asarray(ScaledImages(raw))
    if not shuffled:
        np.testing.assert_array_equal(np.concatenate(seen), whole[: sum(map(len, seen))])
    elif not drop:
        np.testing.assert_array_equal(np.sort(np.concatenate(seen), axis=0), np.sort(whole, axis=0))


def test_eight_bit_images_train_like_their_floats(digits):
    raw = np.random.default_rng(0).integers(0, 256, (200, 12), dtype=np.uint8)
    images = ScaledImages(raw)
    lazily, eagerly = small().fit(images), small().fit(np.asarray(images))
    assert torch.equal(weights(lazily), weights(eagerly))
    np.testing.assert_array_equal(lazily.transform(images), eagerly.transform(np.asarray(images)))
    with pytest.raises(InputError, match="12 features"):
        lazily.transform(ScaledImages(raw[:, :5].copy()))


@pytest.mark.parametrize("std", [0.5, "learned"])
def test_saved_estimators_come_back_without_pickle(digits, tmp_path, std):
    vae = small(encoder_std=std, random_state=14609714069366804553).fit(digits)
    folder = save_estimator(vae, tmp_path / "vae")
    assert sorted(item.name for item in folder.iterdir()) == ["estimator.json", "weights.pt"]
    loaded = load_estimator(folder)
    np.testing.assert_array_equal(loaded.transform(digits), vae.transform(digits))
    assert loaded.score(digits) == vae.score(digits)
    assert loaded.seed_ == vae.seed_ == 14609714069366804553
    assert loaded.collapse_ == vae.collapse_
    np.testing.assert_array_equal(loaded.history_[names.TRAIN_LOSS], vae.history_[names.TRAIN_LOSS])
    (folder / "weights.pt").write_bytes(b"cut")
    with pytest.raises(InputError, match="no readable HarmonicVAE"):
        load_estimator(folder)
