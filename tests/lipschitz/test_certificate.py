"""Certificates: they verify again, and nothing else does."""

import copy
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.certificate import KINDS as VERIFIERS
from harmonicvae.lipschitz.certificate import prove, verify_certificate
from harmonicvae.lipschitz.certificate_files import load_certificate, save_certificate
from harmonicvae.lipschitz.chain import build_chain
from harmonicvae.lipschitz.exact import verify_exactly
from harmonicvae.lipschitz.slopes import SlopeRanges, slope_ranges

from .proposals import (
    KINDS,
    exact_product,
    propose,
    random_network,
    random_slopes,
    squared_norm_below,
)

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
DIMS = [4, 5, 3, 6, 2]


def certified(kind, network, slopes=None):
    """A certificate as it is read from JSON."""
    proof = prove(network, propose(kind, build_chain(network, slopes)), slopes)
    content = json.loads(json.dumps(proof.certificate, allow_nan=False))
    assert content == proof.certificate
    assert content["value"] == proof.value
    return content


@EVERY_KIND
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("activation", ["sigmoid", "leaky_relu", "relu"])
def test_certificates_survive_json_and_verify(kind, scale, activation):
    from harmonicvae.network import LayeredNetwork

    weights = [scale * w for w in random_network(0, DIMS).weights]
    network = LayeredNetwork.from_arrays(weights, None, activation)
    certificate = certified(kind, network)
    assert verify_certificate(certificate, network)
    less = {**certificate, "value": certificate["value"] * (1 - 1e-12)}
    assert not verify_certificate(less, network)
    more = {**certificate, "value": certificate["value"] * 2}
    assert verify_certificate(more, network)


@EVERY_KIND
@pytest.mark.parametrize("rule", ["propagated", "box"])
def test_slope_ranges_are_computed_anew(kind, rule):
    """Wider ranges than the network's are taken, narrower ones refused."""
    network = random_network(1, DIMS, "sigmoid")
    box = ([-1.0, -math.inf, 0.0, -1.0], [1.0, 2.0, 0.5, math.inf]) if rule == "box" else None
    slopes = slope_ranges(network, rule, box)
    certificate = certified(kind, network, slopes)
    assert certificate["scope"] == ("box" if rule == "box" else "global")
    assert verify_certificate(certificate, network)
    assert verify_exactly(certificate, network)
    wider = SlopeRanges(
        tuple(a - 0.01 for a in slopes.alphas),
        tuple(b + 0.01 for b in slopes.betas),
        slopes.rule,
        slopes.box,
    )
    assert verify_certificate(certified(kind, network, wider), network)
    for name, step in (("alphas", 1e-3), ("betas", -1e-3)):
        for layer in range(3):
            narrow = copy.deepcopy(certificate)
            entry = np.atleast_1d(narrow["slopes"][name][layer])
            entry = np.broadcast_to(entry, DIMS[layer + 1]).copy()
            entry[-1] += step
            narrow["slopes"][name][layer] = entry.tolist()
            assert not verify_certificate(narrow, network)
            assert not verify_exactly(narrow, network)
    with pytest.raises(InputError, match="scope"):
        verify_certificate({**certificate, "scope": "everywhere"}, network)
    if rule == "box":
        with pytest.raises(InputError, match="scope"):
            verify_certificate({**certificate, "scope": "global"}, network)


@EVERY_KIND
def test_random_slopes_with_dead_neurons(kind):
    for seed in range(10):
        network = random_network(seed, DIMS)
        slopes = random_slopes(seed, network, dead=0.3)
        wide = SlopeRanges(
            tuple(
                np.where(a == b, 0.0, np.minimum(a, 0.0))
                for a, b in zip(slopes.alphas, slopes.betas)
            ),
            tuple(np.where(a == b, 0.0, 1.0) for a, b in zip(slopes.alphas, slopes.betas)),
            "activation",
        )
        proof = propose(kind, build_chain(network, wide)).prove(network, wide)
        # a dead ReLU is a claim about the network that the rule does not support
        dead = any(np.any(b == 0) for b in wide.betas)
        assert verify_certificate(proof.certificate, network) == (not dead)


@EVERY_KIND
def test_other_networks_and_versions_are_refused(kind):
    network = random_network(0, DIMS, "sigmoid")
    certificate = certified(kind, network)
    for other in (random_network(1, DIMS, "sigmoid"), network.with_slopes(0.0, 1.0)):
        for verify in (verify_certificate, verify_exactly):
            with pytest.raises(InputError, match="belongs to network"):
                verify(certificate, other)
    with pytest.raises(InputError, match="version"):
        verify_certificate({**certificate, "version": 1}, network)
    with pytest.raises(InputError, match="unknown kind"):
        verify_certificate({**certificate, "kind": "guess"}, network)
    with pytest.raises(InputError, match="mapping"):
        verify_certificate([certificate], network)
    for key in certificate:
        missing = {name: entry for name, entry in certificate.items() if name != key}
        with pytest.raises(InputError, match="incomplete"):
            verify_certificate(missing, network)


def places(content, path=()):
    """Paths to everything inside a certificate."""
    found = [path] if path else []
    if isinstance(content, dict):
        items = content.items()
    else:
        items = enumerate(content) if isinstance(content, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def replaced(content, path, new):
    """The certificate with one entry changed."""
    if not path:
        return new(content)
    copied = copy.copy(content)
    copied[path[0]] = replaced(content[path[0]], path[1:], new)
    return copied


def mutation(draw):
    """A function from an entry to something else."""
    simple = st.sampled_from(
        [None, True, "", "inf", "nan", "propagated", "box", [], {}, [[]], 0, -1, 1, 2.0, -0.0]
        + [math.nan, math.inf, -math.inf, 1e308, 5e-324, 10**400, 2**60]
        + ["norm_product", "lmi", "product"]
    )
    factor = draw(st.sampled_from([0.5, 0.9, 1 - 1e-9, 1 - 2.0**-52, 1.1, 2.0, -1.0, 1e-20, 1e20]))
    step = draw(st.integers(-3, 3))
    other = draw(simple)

    def number(entry):
        return entry * factor if isinstance(entry, float) else entry + step

    def change(entry):
        if type(entry) in (int, float) and draw(st.integers(0, 3)):
            return number(entry)
        if isinstance(entry, list) and entry and draw(st.booleans()):
            return draw(st.sampled_from([entry[:-1], [*entry, entry[0]], entry[::-1]]))
        return other

    return change


NETWORK = random_network(3, DIMS, signed=False)
TRUE = squared_norm_below(exact_product(NETWORK.weights))
CERTIFICATES = {kind: certified(kind, NETWORK) for kind in KINDS}


@given(data=st.data(), kind=st.sampled_from(KINDS))
@settings(max_examples=600, deadline=None)
def test_no_altered_certificate_proves_less_than_the_constant(data, kind):
    certificate = CERTIFICATES[kind]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(certificate)))
        certificate = replaced(certificate, path, mutation(data.draw))
    if data.draw(st.booleans()):
        certificate = replaced(
            certificate, (), lambda c: {**c, "value": float(TRUE) ** 0.5 * 0.999}
        )
    for verify in (verify_certificate, verify_exactly):
        try:
            holds = verify(certificate, NETWORK)
        except InputError:
            continue
        value = certificate["value"]
        assert not holds or value == math.inf or Fraction(value) ** 2 >= TRUE


@EVERY_KIND
def test_files_keep_every_digit(kind, tmp_path):
    network = random_network(2, DIMS, "sigmoid")
    slopes = slope_ranges(network, "box", (np.full(4, -math.inf), np.linspace(0.1, 0.7, 4)))
    certificate = certified(kind, network, slopes)
    path = tmp_path / "certificate.json"
    for _ in range(2):  # the second time replaces the first
        save_certificate(certificate, path)
    assert load_certificate(path) == certificate
    assert [item.name for item in tmp_path.iterdir()] == ["certificate.json"]
    infinite = {**certificate, "value": math.inf}
    save_certificate(infinite, path)
    assert load_certificate(path) == infinite


def test_failed_writing_leaves_the_old_file(tmp_path):
    certificate = CERTIFICATES["lmi"]
    path = tmp_path / "certificate.json"
    save_certificate(certificate, path)
    for damaged, message in (
        ({**certificate, "rho": math.nan}, "numbers"),
        ({**certificate, "rho": np.ones(2)}, "numbers"),
        ({"value": 1.0}, "missing"),
        ([1.0], "list"),
    ):
        with pytest.raises(InputError, match=message):
            save_certificate(damaged, path)
    assert load_certificate(path) == certificate
    assert [item.name for item in tmp_path.iterdir()] == ["certificate.json"]
    with pytest.raises(InputError, match="cannot write"):
        save_certificate(certificate, tmp_path / "none" / "certificate.json")
    with pytest.raises(InputError, match="cannot write"):
        save_certificate(certificate, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[" * 100_000, "JSON"),
        ("[1]", "must hold a certificate"),
        ("{}", "missing: version"),
        ("3", "must hold a certificate"),
        ('{"value": NaN}', "finite"),
        ('{"value": -Infinity}', "finite"),
        ('{"value": 1e999}', "float64"),
        ('{"value": ' + "9" * 5000 + "}", "float64"),
        ('{"value": 9007199254740993}', "float64"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, message):
    path = tmp_path / "certificate.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_certificate(path)


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "certificate.json"
    with pytest.raises(InputError, match="cannot read"):
        load_certificate(path)
    with pytest.raises(InputError, match="cannot read"):
        load_certificate(tmp_path)
    path.write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="other bytes"):
        load_certificate(path)
    path.write_text(json.dumps({**CERTIFICATES["lmi"], "value": "large"}))
    with pytest.raises(InputError, match="value"):
        load_certificate(path)


@given(kind=st.sampled_from(KINDS), cut=st.floats(0.0, 1.0), byte=st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_truncated_and_altered_files_raise_or_prove_nothing_wrong(
    tmp_path_factory, kind, cut, byte
):
    text = json.dumps(CERTIFICATES[kind]).encode()
    place = int(cut * (len(text) - 1))
    path = tmp_path_factory.mktemp("files") / "certificate.json"
    for content in (text[:place], text[:place] + bytes([byte]) + text[place + 1 :]):
        path.write_bytes(content)
        try:
            certificate = load_certificate(path)
            holds = verify_certificate(certificate, NETWORK)
        except InputError:
            continue
        value = certificate["value"]
        assert not holds or value == math.inf or Fraction(value) ** 2 >= TRUE


def test_every_kind_has_a_verifier():
    assert set(VERIFIERS) >= set(KINDS)
