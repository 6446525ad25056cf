""" "best" takes bounds that were computed before, and only those that would come out again."""

import pytest

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz import METHODS, bound, bracket, verify_certificate
from harmonicvae.network import LayeredNetwork
from tests.lipschitz.cases import dense_weights

SINGLE = ("norm_product", "eclipse_fast", "lipsdp_neuron")
DIMS = [5, 9, 8, 4]


@pytest.fixture
def computed(monkeypatch):
    """The methods that ran, in order."""
    names = []
    for name in SINGLE:
        plain = METHODS[name]._bound

        def watched(self, task, plain=plain, name=name):
            names.append(name)
            return plain(self, task)

        monkeypatch.setattr(METHODS[name], "_bound", watched)
    return names


def network_of(activation, seed=0):
    return LayeredNetwork.from_arrays(dense_weights(seed, DIMS), activation=activation)


def test_nothing_is_computed_again_where_slopes_are_the_activations_own(computed):
    network = network_of("elu")
    known = [bound(network, name) for name in SINGLE]
    expected = bound(network)
    del computed[:]
    result = bound(network, known=known)
    assert computed == []
    assert result.value == expected.value
    assert result.details["compared"] == expected.details["compared"]
    assert result.details["slopes"] == "propagated"
    assert result.seconds == pytest.approx(sum(item.seconds for item in known))
    assert verify_certificate(result.certificate, network)


def test_methods_that_are_not_known_are_computed(computed):
    network = network_of("elu")
    known = [bound(network, "norm_product")]
    del computed[:]
    bound(network, known=known)
    assert computed == ["eclipse_fast", "lipsdp_neuron"]


@pytest.mark.parametrize(
    ("known_of", "options"),
    [
        ({"activation": "sigmoid"}, {}),  # propagated slopes are narrower
        ({"activation": "elu", "seed": 1}, {}),
        ({"activation": "elu"}, {"box": (-1.0, 1.0)}),
        ({"activation": "elu"}, {"slopes": "box", "box": (-1.0, 1.0)}),
    ],
)
def test_bounds_of_something_else_are_not_taken(computed, known_of, options):
    network = network_of(known_of["activation"])
    other = network_of(**known_of)
    known = [bound(other, name) for name in SINGLE]
    expected = bound(network, **options)
    del computed[:]
    result = bound(network, known=known, **options)
    assert computed == list(SINGLE)
    assert result.value == expected.value


def test_bounds_of_a_box_are_never_taken(computed):
    network = network_of("elu")
    boxed = [bound(network, name, box=(-0.01, 0.01)) for name in SINGLE]
    expected = bound(network)
    del computed[:]
    assert bound(network, known=boxed).value == expected.value
    assert computed == list(SINGLE)
    with pytest.raises(InputError, match="box"):
        bound(network, slopes="box", known=boxed)


def test_the_smallest_of_several_is_taken():
    network = network_of("elu")
    full, rough = bound(network, "lipsdp_neuron"), bound(network, "lipsdp_neuron", max_size=5)
    assert rough.value > full.value
    for known in ([full, rough], [rough, full]):
        assert bound(network, known=known).value == full.value
        assert bracket(network, known=known).upper.value == full.value


@pytest.mark.parametrize("known", [None, 3, ["lipsdp_neuron"]])
def test_what_is_no_bound_is_refused(known):
    with pytest.raises(InputError, match="known must be"):
        bound(network_of("elu"), known=known)


def test_errors_are_told_apart(computed):
    network = network_of("sigmoid")
    plain = [bound(network, name) for name in SINGLE]
    wrong = [bound(network, name, ["slope_one"]) for name in SINGLE]
    expected = bound(network, reproduction_errors=["slope_one"])
    del computed[:]
    assert bound(network, "best", ["slope_one"], known=wrong).value == expected.value
    assert computed == []
    assert bound(network, "best", ["slope_one"], known=plain).value == expected.value
    assert computed == list(SINGLE)
    del computed[:]
    assert bound(network, slopes="activation", known=plain).value < expected.value
    assert computed == []
