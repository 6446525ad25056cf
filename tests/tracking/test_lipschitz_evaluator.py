"""The evaluator "lipschitz": its metrics, its artifacts, and what it computes only once."""

import json
import math
from itertools import pairwise
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from harmonicvae import names
from harmonicvae.cli import main
from harmonicvae.datasets import load_sinc
from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import METHODS, bound, load_certificate, verify_certificate
from harmonicvae.network import LayeredNetwork
from harmonicvae.tracking import lipschitz_bounds
from harmonicvae.tracking.lipschitz_bounds import (
    DEFAULT_METHODS,
    SolverOptions,
    best_bound,
    lipschitz_artifacts,
    measure_side,
)


def build(dims, seed=0, scale=2.0):
    draw = np.random.default_rng(seed)
    weights = [
        scale * draw.standard_normal((after, before)) / math.sqrt(before)
        for before, after in pairwise(dims)
    ]
    return LayeredNetwork.from_arrays(weights, activation="sigmoid")


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch):
    monkeypatch.setattr(lipschitz_bounds, "_BEST_BOUNDS", type(lipschitz_bounds._BEST_BOUNDS)())


# ------------------------------------------------------------------------ one network


@pytest.mark.parametrize("inputs", [1, 3])
def test_metrics_are_those_of_the_bounds(inputs):
    network = build([inputs, 12, 8, 5])
    found = measure_side(network, np.zeros((1, inputs)))
    metrics = found.metrics("decoder")
    for method in DEFAULT_METHODS[:-1]:
        own = bound(network, method, slopes="activation").value
        assert metrics[names.lipschitz_upper("decoder", method)] == own
        assert metrics[names.lipschitz_upper("decoder")] < own
    assert names.lipschitz_upper("decoder", "best") not in metrics
    assert metrics[names.lipschitz_upper("decoder")] == bound(network).value
    lower, upper = (
        metrics[names.lipschitz_lower("decoder")],
        metrics[names.lipschitz_upper("decoder")],
    )
    assert 0 < lower <= upper
    assert metrics[names.lipschitz_ratio("decoder")] == upper / lower
    assert 0 <= metrics[names.lipschitz_gap("decoder")] <= 1e-6
    assert metrics[names.lipschitz_seconds("decoder")] > 0
    solved = bound(network, "lipsdp_neuron", slopes="activation" if inputs == 1 else "propagated")
    assert metrics[names.lipschitz_gap("decoder")] == solved.details["duality_gap"]
    if inputs == 1:  # branch and bound knows the constant
        assert upper <= lower * 1.0001


def test_the_gap_is_that_of_the_solve():
    network = build([3, 12, 8, 5])
    solver = SolverOptions(gap=0.05)
    found = measure_side(network, np.zeros((1, 3)), ["lipsdp_neuron"], solver=solver)
    expected = bound(network, "lipsdp_neuron", gap=0.05).details["duality_gap"]
    assert found.metrics("encoder")[names.lipschitz_gap("encoder")] == expected > 1e-6


def test_the_smallest_bound_counts_whichever_method_gives_it():
    network = build([3, 12, 8, 5])
    found = measure_side(network, np.zeros((1, 3)), ["norm_product", "eclipse_fast"])
    metrics = found.metrics("encoder")
    fast = metrics[names.lipschitz_upper("encoder", "eclipse_fast")]
    assert metrics[names.lipschitz_upper("encoder")] == fast
    assert metrics[names.lipschitz_upper("encoder", "norm_product")] > fast
    assert names.lipschitz_gap("encoder") not in metrics


def test_slopes_and_size_act_on_the_solver():
    network = build([3, 12, 8, 5])
    found = measure_side(network, np.zeros((1, 3)), solver=SolverOptions(slopes="activation"))
    assert found.uppers["best"].value == found.uppers["lipsdp_neuron"].value
    small = measure_side(network, np.zeros((1, 3)), solver=SolverOptions(max_size=4))
    assert small.uppers["best"].value > bound(network).value
    assert small.uppers["lipsdp_neuron"].message
    (message,) = {row["message"] for row in small.rows("x") if row["slopes"] == "propagated"}
    assert message == small.uppers["best"].message


def test_slope_one_takes_the_published_slopes_and_the_same_row_is_there_once():
    network = build([1, 12, 8, 5])
    found = measure_side(network, np.zeros((1, 1)), errors=("slope_one",))
    wide = network.with_slopes(0.0, 1.0)
    assert found.uppers["best"].value == bound(network, "lipsdp_neuron", ["slope_one"]).value
    assert verify_certificate(found.uppers["best"].certificate, wide)
    rows = pd.DataFrame(found.rows("decoder"))
    assert rows["method"].value_counts().max() == 1
    assert set(rows["slopes"]) == {"", "activation"}


def test_methods_that_do_not_apply_are_left_out():
    found = measure_side(build([3, 4, 2]), np.zeros((1, 3)), ["interval", "norm_product"])
    assert list(found.uppers) == ["norm_product"]


def test_the_best_bound_is_solved_once_for_the_same_network(monkeypatch):
    calls, real = [], lipschitz_bounds.bound

    def counted(network, method, *arguments, **options):
        calls.append(method)
        return real(network, method, *arguments, **options)

    monkeypatch.setattr(lipschitz_bounds, "bound", counted)
    network = build([3, 4, 2])
    first = measure_side(network, np.zeros((1, 3))).uppers["best"]
    assert best_bound(build([3, 4, 2])) is first
    assert calls.count("best") == 1
    others = [
        best_bound(build([3, 4, 2], seed=1)),
        best_bound(network, ("slope_one",)),
        best_bound(network, (), SolverOptions(slopes="activation")),
        best_bound(network, (), SolverOptions(gap=0.5)),
    ]
    assert calls.count("best") == 5
    assert len({item.value for item in (first, *others)}) >= 4
    for seed in range(20):
        best_bound(build([1, 1, 1], seed=seed))
    assert len(lipschitz_bounds._BEST_BOUNDS) <= 8


def test_artifacts_hold_every_certificate_and_the_weights():
    sides = {"encoder": build([3, 4, 2]), "decoder": build([1, 4, 2])}
    found = {
        side: measure_side(item, np.zeros((1, item.input_dim))) for side, item in sides.items()
    }
    contents = lipschitz_artifacts(found)
    assert set(contents) == {
        names.ARTIFACT_BOUNDS,
        names.ARTIFACT_NETWORKS,
        *(names.weights_artifact(side) for side in sides),
        *(names.certificate_artifact(side, m) for side in sides for m in DEFAULT_METHODS),
    }
    table = contents[names.ARTIFACT_BOUNDS]
    assert [names.MODEL, *table.columns] == list(names.BOUND_COLUMNS)
    uppers = table[(table["side"] == "encoder") & (table["kind"] == "upper")]
    assert uppers[["method", "slopes"]].to_numpy().tolist() == [
        ["norm_product", "activation"],
        ["eclipse_fast", "activation"],
        ["lipsdp_neuron", "activation"],
        ["lipsdp_neuron", "propagated"],
    ]
    described = contents[names.ARTIFACT_NETWORKS]["decoder"]
    assert described["network_hash"] == sides["decoder"].hash
    assert described["activations"] == ["sigmoid"]
    assert described["certificates"]["best"] == names.certificate_artifact("decoder", "best")


# ------------------------------------------------------------------- a registered model


@pytest.fixture(scope="module")
def model_uri(store):
    assert main(["train", "--epochs", "2", "--encoder-std", "0.5"]) == 0
    return "models:/harmonicvae-sinc/1"


@pytest.fixture(scope="module")
def evaluated(model_uri):
    """Metrics of the run, its downloaded artifacts, and what MLflow returned."""
    with mlflow.start_run() as run:
        result = mlflow.models.evaluate(
            model_uri,
            load_sinc("train").data[:6],
            model_type="vae",
            evaluators=["lipschitz", "max_damage"],
            evaluator_config={
                "lipschitz": {"n_points": 6},
                "max_damage": {"radii": [0.5], "n_images": 2, "n_steps": 3, "n_restarts": 1},
            },
        )
    metrics = MlflowClient().get_run(run.info.run_id).data.metrics
    folder = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="lipschitz")
    return metrics, Path(folder), result


def test_the_run_holds_all_metrics(evaluated):
    metrics, _, result = evaluated
    for side in names.SIDES:
        assert metrics[names.lipschitz_lower(side)] <= metrics[names.lipschitz_upper(side)]
        assert metrics[names.lipschitz_gap(side)] <= 1e-6
        assert metrics[names.lipschitz_ratio(side)] >= 1
        own = [metrics[names.lipschitz_upper(side, method)] for method in DEFAULT_METHODS[:-1]]
        assert own == sorted(own, reverse=True)
        assert metrics[names.lipschitz_upper(side)] < own[-1]
    assert metrics[names.lipschitz_ratio("decoder")] <= 1.0001  # one latent unit
    assert {key: result.metrics[key] for key in metrics if key in result.metrics} == metrics


@pytest.mark.parametrize("side", names.SIDES)
@pytest.mark.parametrize("method", DEFAULT_METHODS)
def test_downloaded_certificates_verify_with_the_downloaded_weights(
    evaluated, capsys, side, method
):
    metrics, folder, _ = evaluated
    proof = folder / Path(names.certificate_artifact(side, method)).name
    weights = folder / Path(names.weights_artifact(side)).name
    described = json.loads((folder / "networks.json").read_text())[side]
    activation = ",".join(described["activations"])
    assert main(["verify", str(proof), str(weights), "--activation", activation]) == 0
    value = load_certificate(proof)["value"]
    assert repr(value) in capsys.readouterr().out
    key = names.lipschitz_upper(side, None if method == "best" else method)
    assert value == metrics[key]
    other = folder / Path(names.weights_artifact({"encoder": "decoder"}.get(side, "encoder"))).name
    assert main(["verify", str(proof), str(other), "--activation", activation]) == 2


def test_artifacts_come_back_as_they_were(evaluated):
    _, folder, result = evaluated
    for path, artifact in result.artifacts.items():
        if path.startswith("lipschitz/") and not path.endswith(".csv"):
            loaded = type(artifact)(uri=artifact.uri)
            loaded._load(str(folder / Path(path).name))
            np.testing.assert_equal(loaded.content, artifact.content)


def test_the_attack_uses_the_smallest_bounds(evaluated):
    metrics, _, result = evaluated
    table = result.artifacts[names.ARTIFACT_ATTACKS].content
    product = math.prod(metrics[names.lipschitz_upper(side)] for side in names.SIDES)
    expected = table[names.DAMAGE] / (table[names.RADIUS] * product)
    assert table[names.BOUND_RATIO].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-9)


def test_the_verb_takes_methods_and_options(model_uri, capsys):
    arguments = ["--methods", "eclipse_fast,interval,best", "--slopes", "activation", "--json"]
    arguments += ["--gap", "0.3", "--max-size", "5000", "--device", "cpu", "--points", "4"]
    assert main(["lipschitz", model_uri, *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    uppers = {key for key in found if key.startswith("lipschitz_upper_l2_encoder")}
    assert uppers == {
        names.lipschitz_upper("encoder"),
        names.lipschitz_upper("encoder", "eclipse_fast"),
    }
    assert names.lipschitz_upper("decoder", "interval") in found
    assert 1e-6 < found[names.lipschitz_gap("encoder")] <= 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "magic"], "methods must be one of norm_product"),
        (["--slopes", "box"], "slopes must be one of"),
        (["--gap", "2"], "gap must be a number in (0, 1)"),
        (["--max-size", "0"], "max_size must be an integer >= 1"),
        (["--device", "abacus"], "device must be"),
    ],
)
def test_bad_options_of_the_verb_are_one_clear_line(store, capsys, arguments, message):
    assert main(["lipschitz", "models:/x/1", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("config", [{"methods": ["magic"]}, {"sides": ["middle"]}])
def test_unknown_words_are_refused_before_anything_is_solved(model_uri, config):
    with pytest.raises(InputError, match=next(iter(config.values()))[0]):
        mlflow.models.evaluate(
            model_uri,
            load_sinc("train").data[:2],
            model_type="vae",
            evaluators="lipschitz",
            evaluator_config=config,
        )


def test_every_method_has_a_place_in_the_report():
    from harmonicvae.report.formatting import HEADINGS
    from harmonicvae.report.lipschitz_tables import METHOD_ORDER

    assert set(METHOD_ORDER) == set(METHODS)
    assert {f"upper_{method}" for method in (*METHODS, "best")} <= set(HEADINGS)
