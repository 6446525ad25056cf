"""The verbs "bound" and "verify": what they print, prove, refuse, and how they stop."""

import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonicvae import bound_commands
from harmonicvae.cli import main
from harmonicvae.lipschitz import METHODS, bound, load_certificate, lower_bound, save_certificate
from harmonicvae.network import LayeredNetwork
from harmonicvae.options import outputs
from harmonicvae.solver_watch import SolverWatch


def build(dims, activation="sigmoid", seed=0, scale=2.0):
    draw = np.random.default_rng(seed)
    weights = [
        scale * draw.standard_normal((after, before)) / math.sqrt(before)
        for before, after in pairwise(dims)
    ]
    biases = [0.1 * draw.standard_normal(size) for size in dims[1:]]
    return LayeredNetwork.from_arrays(weights, biases, activation)


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A small network, stored as net.mat in the working folder."""
    monkeypatch.chdir(tmp_path)
    found = build([3, 8, 6, 4])
    found.to_mat("net.mat")
    return found


def printed(capsys, *arguments, code=0):
    assert main(list(arguments)) == code
    return json.loads(capsys.readouterr().out)


APPLICABLE = [*(method for method in METHODS if method != "interval"), "best"]
SIGMOID = ("net.mat", "--activation", "sigmoid")


# -------------------------------------------------------------------------------- values


@pytest.mark.parametrize("method", APPLICABLE)
def test_json_is_the_record_of_the_same_call(network, capsys, method):
    found = printed(capsys, "bound", *SIGMOID, "--method", method, "--json")
    expected = bound(network, method).to_dict()
    assert "certificate" not in found
    changing = ("certificate", "seconds")
    assert {k: v for k, v in found.items() if k not in changing} == {
        k: v for k, v in expected.items() if k not in changing
    }


@pytest.mark.parametrize(
    ("arguments", "select", "options"),
    [
        (["--slopes", "activation"], None, {"slopes": "activation"}),
        (["--slopes", "propagated"], None, {"slopes": "propagated"}),
        (["--box", "-1,0.5"], None, {"box": (-1.0, 0.5)}),
        (["--box=-inf,inf"], None, {"box": (-math.inf, math.inf)}),
        (["--outputs", "2"], [2], {}),
        (["--outputs", "3,1"], [3, 1], {}),
        (["--outputs", "3-1"], [[0.0, -1.0, 0.0, 1.0]], {}),
        (["--outputs", "0,3-1"], [[1.0, 0, 0, 0], [0.0, -1.0, 0.0, 1.0]], {}),
        (["--method", "lipsdp_neuron", "--split", "2"], None, {"split": 2}),
        (["--method", "lipsdp_neuron", "--gap", "0.1"], None, {"gap": 0.1}),
        (["--reproduction-errors", "slope_one"], None, {"reproduction_errors": ["slope_one"]}),
    ],
)
def test_options_reach_the_solver(network, capsys, arguments, select, options):
    found = printed(capsys, "bound", *SIGMOID, *arguments, "--json")
    chosen = network if select is None else network.select_outputs(select)
    method = arguments[1] if arguments[0] == "--method" else "best"
    expected = bound(chosen, method, **options)
    assert found["value"] == expected.value
    assert found["scope"] == expected.scope
    assert found["network_hash"] == expected.network_hash
    if arguments != ["--slopes", "propagated"]:  # the default of "best"
        assert (found["value"], found["scope"]) != (bound(network).value, "global")


@pytest.mark.parametrize("seed", range(3))
def test_nonnegative_networks_meet_their_exact_constant(tmp_path, capsys, seed):
    draw = np.random.default_rng(seed)
    dims = draw.integers(1, 9, size=5)
    weights = [draw.uniform(size=(after, before)) for before, after in pairwise(dims)]
    exact = np.linalg.norm(np.linalg.multi_dot(weights[::-1]), 2)
    path = str(tmp_path / "net.mat")
    LayeredNetwork.from_arrays(weights, activation="relu").to_mat(path)
    found = printed(capsys, "bound", path, "--activation", "relu", "--lower", "--json")
    assert exact <= found["upper"]["value"] <= exact * (1 + 1e-4)
    assert found["lower"]["value"] <= found["upper"]["value"]
    assert found["ratio"] == found["upper"]["value"] / found["lower"]["value"]


def test_lower_adds_the_lower_bound_in_the_box(network, capsys):
    found = printed(capsys, "bound", *SIGMOID, "--box", "-1,1", "--lower", "--json")
    expected = lower_bound(network, box=(-1.0, 1.0))
    assert found["lower"]["value"] == expected.value
    assert found["lower"]["scope"] == found["upper"]["scope"] == "box"


def test_text_holds_every_digit_of_what_is_proved(network, capsys):
    assert main(["bound", *SIGMOID, "--lower"]) == 0
    lines = dict(
        re.split(r"  +", line.strip(), maxsplit=1) for line in capsys.readouterr().out.splitlines()
    )
    expected = bound(network)
    assert float(lines["bound"]) == expected.value
    assert lines["status"] == "certified"
    assert lines["scope"] == "all inputs"
    assert "3-8-6-4" in lines["network"]
    assert "sigmoid" in lines["network"]
    assert float(lines["upper / lower"]) > 1
    for method, value in expected.details["compared"].items():
        assert float(lines[method]) == value


def test_an_infinite_bound_is_valid_json(tmp_path, capsys):
    path = str(tmp_path / "net.mat")
    LayeredNetwork.from_arrays([[[1e300]], [[1e300]]], activation="relu").to_mat(path)
    certificate = str(tmp_path / "proof.json")
    arguments = ["--activation", "relu", "--method", "norm_product", "--certificate", certificate]
    assert main(["bound", path, *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["value"] == "inf"
    assert "scale the network down" in found["message"]
    assert main(["verify", certificate, path, "--activation", "relu"]) == 0
    assert "≤ inf" in capsys.readouterr().out


def test_an_onnx_file_names_its_own_activation(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    source = build([2, 5, 3], "relu")
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Gemm", ["x", "w0", "b0"], ["a"], transB=1),
            onnx.helper.make_node("Relu", ["a"], ["h"]),
            onnx.helper.make_node("Gemm", ["h", "w1", "b1"], ["y"], transB=1),
        ],
        "net",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, [1, 2])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, [1, 3])],
        [
            onnx.numpy_helper.from_array(array, f"{letter}{i}")
            for letter, arrays in (("w", source.weights), ("b", source.biases))
            for i, array in enumerate(arrays)
        ],
    )
    path = str(tmp_path / "net.onnx")
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)]), path)
    found = printed(capsys, "bound", path, "--json")
    assert found["network_hash"] == source.hash
    assert main(["bound", path, "--activation", "relu"]) == 2
    assert "ONNX" in capsys.readouterr().err


@given(st.text(max_size=12) | st.from_regex(r"[0-9]{0,3}[-,][0-9]{0,3}", fullmatch=True))
def test_selections_are_valid_or_refused(text):
    from harmonicvae.exceptions import InputError

    try:
        found = outputs("outputs", text, 5)
    except InputError:
        return
    assert build([2, 5]).select_outputs(found).output_dim == len(found) == len(text.split(","))


# --------------------------------------------------------------------------- certificates


@pytest.mark.parametrize(
    "extra", [[], ["--outputs", "3-1"], ["--reproduction-errors", "slope_one"]]
)
@pytest.mark.parametrize("box", [[], ["--box", "-1,1"]])
def test_a_certificate_verifies_where_it_belongs_and_nowhere_else(network, capsys, extra, box):
    assert main(["bound", *SIGMOID, *extra, *box, "--certificate", "proof.json"]) == 0
    text = capsys.readouterr().out
    command = re.search(r"harmonicvae (verify .*)", text)[1].split()
    assert command == ["verify", "proof.json", *SIGMOID, *extra]
    assert main([*command, "--exact"]) == 0
    text = capsys.readouterr().out
    assert repr(load_certificate("proof.json")["value"]) in text
    assert re.search(r"exact arithmetic +proved", text)
    assert ("[-1.0, 1.0]" in text) == bool(box)
    if extra:
        assert main(["verify", "proof.json", *SIGMOID]) == 2
        assert "belongs to network" in capsys.readouterr().err


def test_a_value_too_small_is_not_proved(network, capsys):
    certificate = dict(bound(network).certificate)
    certificate["value"] *= 0.999
    save_certificate(certificate, "proof.json")
    assert main(["verify", "proof.json", *SIGMOID]) == 1
    text = capsys.readouterr().out
    assert "NOT proved" in text
    assert re.search(r"exact arithmetic +not proved", text)


def test_exact_arithmetic_is_used_unasked_for_small_networks_only(network, capsys, tmp_path):
    big = build([3, 100, 40, 2])
    big.to_mat(tmp_path / "big.mat")
    for file in ("net.mat", "big.mat"):
        call = [file, "--activation", "sigmoid"]
        arguments = ["--method", "eclipse_fast", "--certificate", "proof.json"]
        assert main(["bound", *call, *arguments]) == 0
        assert main(["verify", "proof.json", *call]) == 0
        text = capsys.readouterr().out
        assert "rounding errors included  proved" in text
        assert ("exact arithmetic" in text) == (file == "net.mat")
    assert main(["verify", "proof.json", *call, "--exact"]) == 2
    assert "143 rows, more than limit = 128" in capsys.readouterr().err


def test_a_certificate_of_another_kind_is_verified_in_float64(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build([1, 6, 3]).to_mat("net.mat")
    found = printed(capsys, "bound", *SIGMOID, "--lower", "--json", "--certificate", "proof.json")
    assert found["upper"]["method"] == "interval"
    assert found["ratio"] <= 1.0001
    assert main(["verify", "proof.json", *SIGMOID]) == 0
    assert "not done: certificates of kind 'interval'" in capsys.readouterr().out
    assert main(["verify", "proof.json", *SIGMOID, "--exact"]) == 2


# ------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mat", "--activation", "relu"], "none.mat"),
        (["net.txt", "--activation", "relu"], "must end in .mat or .onnx"),
        (["net.mat"], "activation must be given"),
        (["net.mat", "--activation", "magic"], "activation must be one of"),
        (["net.mat", "--activation", "relu,relu,relu"], "activation"),
        ([*SIGMOID, "--method", "magic"], "method must be one of best, norm_product"),
        ([*SIGMOID, "--method", "interval"], "needs a network with 1 input, got 3"),
        ([*SIGMOID, "--box", "1,-1"], "box must be two numbers LOW,HIGH with LOW <= HIGH"),
        ([*SIGMOID, "--box", "1"], "box must be two numbers"),
        ([*SIGMOID, "--box", "nan,1"], "box must be two numbers"),
        (
            [*SIGMOID, "--box", "-1,1", "--slopes", "propagated"],
            "box must not be given with slopes",
        ),
        ([*SIGMOID, "--slopes", "box"], "slopes must be one of activation, propagated"),
        ([*SIGMOID, "--outputs", "4"], "outputs must lie in [0, 3]"),
        ([*SIGMOID, "--outputs", "0-4"], "outputs must lie in [0, 3]"),
        ([*SIGMOID, "--outputs", "-1"], "outputs must be output numbers"),
        ([*SIGMOID, "--outputs", "1-1"], "outputs must be output numbers"),
        ([*SIGMOID, "--split", "0"], "split must be an integer >= 1"),
        ([*SIGMOID, "--gap", "1"], "gap must be a number in (0, 1)"),
        ([*SIGMOID, "--method", "norm_product", "--gap", "0.1"], "norm_product has the options"),
        ([*SIGMOID, "--device", "abacus"], "device must be"),
        ([*SIGMOID, "--certificate", "no/such/folder.json"], "existing folder"),
        ([*SIGMOID, "--certificate", "."], "existing folder"),
        ([*SIGMOID, "--certificate", "./net.mat"], "must not replace the network's file"),
        ([*SIGMOID, "--reproduction-errors", "kl_form"], "reproduction_errors must be among"),
    ],
)
def test_bad_input_is_one_clear_line(network, capsys, arguments, message):
    before = Path("net.mat").read_bytes()
    assert main(["bound", *arguments]) == 2
    found = capsys.readouterr()
    assert message in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert found.out == ""
    assert Path("net.mat").read_bytes() == before
    assert os.listdir() == ["net.mat"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read proof.json"),
        (b"\x00\xff", "JSON file of a certificate"),
        (b"[]", "must hold a certificate"),
        (b"{}", "missing"),
        (b'{"value": NaN}', "finite numbers only"),
    ],
)
def test_damaged_certificates_are_one_clear_line(network, tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "proof.json").write_bytes(content)
    assert main(["verify", "proof.json", *SIGMOID]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_truncated_file_is_one_clear_line(network, tmp_path, capsys):
    content = (tmp_path / "net.mat").read_bytes()
    (tmp_path / "net.mat").write_bytes(content[: len(content) // 2])
    assert main(["bound", *SIGMOID]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


# ------------------------------------------------------------------------------- stopping


@pytest.fixture
def handlers():
    """Handlers as Python starts with, which a runner in the background may have changed."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield lambda: [signal.getsignal(number) for number in numbers]
    for number, handler in zip(numbers, former):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(handlers, capfd, number):
    before = handlers()
    watch = SolverWatch()

    def solve():
        with watch:
            assert not watch("LipSDP", {"iteration": 1})
            os.kill(os.getpid(), number)
            assert watch("LipSDP", {"iteration": 2})
            os.kill(os.getpid(), number)
            pytest.fail("the second signal did nothing")

    with pytest.raises(KeyboardInterrupt):
        solve()
    assert "stopping with the best bound so far" in capfd.readouterr().err
    assert handlers() == before


def test_work_that_cannot_be_asked_ends_at_the_first_signal(handlers):
    def work(watch):
        with watch.ending_at_once():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    with SolverWatch() as watch:
        with pytest.raises(KeyboardInterrupt):
            work(watch)
        assert watch.stop_asked


def test_an_ignored_signal_stays_ignored(handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with SolverWatch() as watch:
        os.kill(os.getpid(), signal.SIGINT)
        assert not watch.stop_asked
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_handlers_come_back_after_every_command(network, handlers, capsys):
    before = handlers()
    for arguments in ([*SIGMOID], [*SIGMOID, "--method", "magic"], ["none.mat"]):
        main(["bound", *arguments])
        assert handlers() == before


def test_commands_run_outside_the_main_thread(network, capsys):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["bound", *SIGMOID])))
    thread.start()
    thread.join()
    assert codes == [0]


class StoppedAtOnce(SolverWatch):
    """A watch whose user has pressed Ctrl-C before the start."""

    def __init__(self):
        super().__init__()
        self.stop_asked = True


@pytest.mark.parametrize("method", APPLICABLE)
def test_a_stop_before_anything_is_known_still_gives_a_proof(network, capsys, monkeypatch, method):
    monkeypatch.setattr(bound_commands, "SolverWatch", StoppedAtOnce)
    arguments = ["--method", method, "--lower", "--json", "--certificate", "proof.json"]
    found = printed(capsys, "bound", *SIGMOID, *arguments, code=130)
    best = bound(network, "lipsdp_neuron", gap=1e-9, slopes="propagated")
    assert found["status"] == "certified"
    assert best.details["dual_value"] * (1 - 1e-9) <= found["value"]
    assert found["value"] <= bound(network, "norm_product").value
    assert main(["verify", "proof.json", *SIGMOID]) == 0
    if method == "best":
        assert found["method"] == "norm_product"
        assert "stopped on request" in found["message"]


def test_a_stop_during_the_lower_bound_keeps_the_upper_one(network, capsys, monkeypatch, handlers):
    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr(bound_commands, "lower_bound", interrupted)
    found = printed(capsys, "bound", *SIGMOID, "--lower", "--json", code=130)
    assert found["value"] == bound(network).value


def until(reads, pattern, seconds=240):
    """Read a terminal until it shows the pattern."""
    text, end = "", time.monotonic() + seconds
    while not re.search(pattern, text):
        ready, _, _ = select.select([reads], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"waited in vain for {pattern!r}, got {text!r}"
        text += os.read(reads, 4096).decode()
    return text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_solve_prints_a_certified_bound(tmp_path, number):
    large = build([32, 300, 300, 300, 300, 10])
    large.to_mat(tmp_path / "net.mat")
    command = [sys.executable, "-m", "harmonicvae", "bound", *SIGMOID, "--gap", "1e-12"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment["COLUMNS"] = "100"
    reads, writes = pty.openpty()
    process = subprocess.Popen(
        [*command, "--json", "--certificate", "proof.json"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=writes,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in background
    )
    os.close(writes)
    try:
        line = until(reads, r"LipSDP iteration \d+: bound \S+, gap \S+")
        assert "\r" in line
        process.send_signal(number)
        until(reads, "once more ends at once")
        out, _ = process.communicate(timeout=240)
    finally:
        process.kill()
        os.close(reads)
    assert process.returncode == 130
    found = json.loads(out)
    assert found["status"] == "certified"
    assert "stopped" in found["message"]
    # of the same number of threads: the proof's last bits depend on it
    fast = [*command[:-2], "--method", "eclipse_fast", "--slopes", "propagated", "--json"]
    closed = subprocess.run(
        fast, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found["value"] <= json.loads(closed.stdout)["value"]
    assert found["value"] == load_certificate(tmp_path / "proof.json")["value"]
