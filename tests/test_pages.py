"""The pages: what they show runs, the commands they name exist, no public name is missing."""

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import shlex
import warnings
from pathlib import Path

import nbformat
import pytest
import yaml

import harmonicvae
from harmonicvae import cli
from harmonicvae.exceptions import CollapseWarning

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
WRITTEN = sorted([*DOCS.glob("*.md"), *DOCS.glob("guide/*.md"), *DOCS.glob("api/*.md")])
DOCUMENTS = [*WRITTEN, ROOT / "README.md"]
FENCE = re.compile(r"^ *```(\S*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
#: Packages and modules whose ``__all__`` is public.
PUBLIC = [
    "harmonicvae",
    "harmonicvae.attacks",
    "harmonicvae.datasets",
    "harmonicvae.harmonics",
    "harmonicvae.lipschitz",
    "harmonicvae.margins",
    "harmonicvae.models",
    "harmonicvae.report",
    "harmonicvae.tracking.evaluators",
]


def name_of(path):
    return str(path.relative_to(ROOT))


def blocks(path, *kinds):
    """Fenced blocks of some kinds, in order, as (kind, text)."""
    found = FENCE.findall(path.read_text(encoding="utf-8"))
    return [(kind, text) for kind, text in found if kind in kinds]


def commands(text, program):
    """Command lines of a program, without prompts, variables, continuations and braces."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        line = re.sub(r"^\s*(\$ )?((\w+=\S+) )*", "", line)
        if line.startswith(f"{program} ") and "|" not in line:
            line = re.sub(r"(\S*)\{([\w,]+)\}", lambda m: _expanded(*m.groups()), line)
            yield shlex.split(line, comments=True)


def _expanded(prefix, choices):
    return " ".join(prefix + choice for choice in choices.split(","))


def shown_commands(program):
    for path in DOCUMENTS:
        for _, text in blocks(path, "sh", "console"):
            for words in commands(text, program):
                yield pytest.param(words[1:], id=f"{name_of(path)}: {shlex.join(words)}"[:120])


def parsers():
    """Parser of every verb."""
    actions = cli._parser()._subparsers._group_actions
    return actions[0].choices


@pytest.mark.parametrize("words", list(shown_commands("harmonicvae")))
def test_every_command_shown_is_one_that_the_shell_takes(words, capsys):
    try:
        cli._parser().parse_args(cli._with_signs(words))
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


@pytest.mark.parametrize("words", list(shown_commands("mlflow")))
def test_every_mlflow_project_shown_has_these_parameters(words):
    if words[0] != "run":
        return
    project, point = words[1], "main"
    if "-e" in words:
        point = words[words.index("-e") + 1]
    folder = ROOT / project.partition("#")[2]
    described = yaml.safe_load((folder / "MLproject").read_text(encoding="utf-8"))
    known = described["entry_points"][point]["parameters"]
    given = [words[k + 1].split("=")[0] for k, word in enumerate(words) if word == "-P"]
    assert set(given) <= set(known)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_option_named_in_a_sentence_exists(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    verbs = parsers()
    every = {option for verb in verbs.values() for option in verb._option_string_actions}
    every |= {"--env-manager", "--nthreads", "--nworkers", "--backend-store-uri"}
    others = LIPSDP_OPTIONS if path.name == "matlab.md" else set()
    for code in re.findall(r"`([^`]+)`", text):
        options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", code))
        verb = re.match(r"harmonicvae (\w+)", code)
        known = every | others
        if verb and verb[1] in verbs:
            known = set(verbs[verb[1]]._option_string_actions)
        assert options <= known, code


#: Options of LipSDP's own solve_sdp.py, named in the page for those who come from there.
LIPSDP_OPTIONS = {"--weight-path", "--form", "--split-size", "--alpha", "--beta"}


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_examples_of_a_page_and_commands_with_output_run(path, tmp_path, monkeypatch):
    """In order and in one folder, so that a command finds the files of the lines before it."""
    monkeypatch.chdir(tmp_path)
    warnings.simplefilter("error", CollapseWarning)
    variables = {}
    for kind, text in blocks(path, "{doctest}", "console"):
        if kind == "{doctest}":
            run_examples(text, variables, name_of(path))
        else:
            run_console(text)


OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run_examples(text, variables, name):
    test = doctest.DocTestParser().get_doctest(text, variables, name, None, 0)
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    out = io.StringIO()
    runner.run(test, out=out.write, clear_globs=False)
    variables.update(test.globs)
    assert runner.summarize(verbose=False).failed == 0, out.getvalue()


def run_console(text):
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, _, expected = part.partition("\n")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert cli.main(shlex.split(line)[1:]) == 0
        checker = doctest.OutputChecker()
        assert checker.check_output(expected, printed.getvalue(), OPTIONS), printed.getvalue()


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_nothing_that_looks_like_an_example_escapes(path):
    rest = re.sub(r"^```\{doctest\}\n.*?^```$", "", path.read_text("utf-8"), flags=re.M | re.S)
    assert ">>>" not in rest
    for _, text in blocks(path, "python", "py"):
        pytest.fail(f"a block that nothing runs: {text}")


def listed():
    pages = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("api/*.md"))
    return set(re.findall(r"^ +(harmonicvae\.[\w.]+)$", pages, re.MULTILINE))


@pytest.mark.parametrize("home", PUBLIC)
def test_every_public_name_is_in_the_reference(home):
    names = [name for name in importlib.import_module(home).__all__ if not name.startswith("_")]
    top = set(harmonicvae.__all__)
    expected = {f"harmonicvae.{name}" if name in top else f"{home}.{name}" for name in names}
    assert expected <= listed()


@pytest.mark.parametrize("home", ["harmonicvae.exceptions", "harmonicvae.records"])
def test_every_record_and_error_is_in_the_reference(home):
    module = importlib.import_module(home)
    own = [
        name
        for name, item in vars(module).items()
        if getattr(item, "__module__", None) == home and not name.startswith("_")
    ]
    ends = {entry.rpartition(".")[2] for entry in listed()}
    assert set(own) <= ends


def test_every_listed_name_exists():
    for entry in listed():
        home, _, name = entry.rpartition(".")
        assert hasattr(importlib.import_module(home), name), entry


def test_every_package_with_public_names_is_checked_here():
    packages = [f"harmonicvae.{p.name}" for p in pkgutil.iter_modules(harmonicvae.__path__)]
    public = {p for p in packages if getattr(importlib.import_module(p), "__all__", None)}
    assert public <= set(PUBLIC)


NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_sites_copy_of_a_notebook_is_the_notebook_with_outputs(path):
    """After a change: python docs/notebooks.py NAME."""
    source = nbformat.read(path, as_version=4).cells
    copy = nbformat.read(DOCS / "notebooks" / path.name, as_version=4).cells
    assert [(c.cell_type, c.source) for c in copy] == [(c.cell_type, c.source) for c in source]
    assert any("image/png" in out.get("data", {}) for c in copy for out in c.get("outputs", []))


def test_every_example_is_in_the_gallery():
    header = (ROOT / "examples" / "GALLERY_HEADER.rst").read_text(encoding="utf-8")
    order = (DOCS / "conf.py").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f":doc:`/notebooks/{path.stem}`" in header
        assert f"   /notebooks/{path.stem}\n" in header
    for path in (ROOT / "examples").glob("*.py"):
        assert path.name.startswith("plot_")
        assert f'"{path.name}"' in order
