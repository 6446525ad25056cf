"""Documents say what the files say, and the README's lines are those that are tested."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from harmonicvae.report.reference import load_reference

ROOT = Path(__file__).resolve().parents[1]


def script(name):
    """Import a script of docs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def experiments():
    return script("experiments")


def test_experiments_are_rendered_from_the_result_files():
    assert (ROOT / "EXPERIMENTS.md").read_text(encoding="utf-8") == experiments().render()


def test_the_study_page_is_rendered_from_the_result_files():
    page = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    assert page == script("study_page").page()
    pictures = (ROOT / "docs" / "pictures.md").read_text(encoding="utf-8")
    assert pictures == script("study_page").pictures()


def test_the_figures_are_drawn_from_the_result_files():
    figures = script("figures")
    reference = load_reference()
    panels = figures.constants().axes
    convolutions = sorted(path.name for path in figures.CONVOLUTIONS.glob("*"))
    assert convolutions == ["cifar10"]
    for panel, name in zip(panels, [*figures.studies(), *convolutions], strict=True):
        crosses = [line.get_xdata() for line in panel.lines if line.get_marker() == "x"]
        drawn = [float(places[0]) for places in crosses if len(places)]  # not the legend's
        same = (reference.dataset == name) & (reference.source == "paper")
        wanted = reference[same & (reference.quantity == "lipschitz_l2")].value
        assert sorted(drawn) == sorted(wanted)
    assert len(figures.factors().axes) == len(figures.studies())
    assert len(figures.harmonics().axes) == 4


def test_the_degree_identity_holds_on_every_trained_model_on_record():
    tables = script("study_tables")
    found = pd.concat(map(tables.degree_identity, tables.titled(tables.studies()).values()))
    assert (found["excess"] < 1).all()
    whole = found[found["tail"] < 1e-3]
    assert len(whole) > 100
    assert ((whole["share"] - 1).abs() < 0.05).all()


def test_every_figure_of_the_study_page_is_there():
    linked = re.findall(r"\]\(figures/([\w.-]+)\)", (ROOT / "docs" / "study.md").read_text("utf-8"))
    assert linked
    assert all((ROOT / "docs" / "figures" / name).is_file() for name in linked)


#: What looks like a measured number and is none, with the reason.
EXACT = {
    "Python 3.11": "a version",
    "HDF5": "a version",
    "64 times looser": "4 to the power of the three hidden layers",
    "0.5 acts as 0.25 and 0.1 as 0.01": "squares",
    "ICLR": "a reference",
}
MEASURED = re.compile(
    r"\d+(?:[.,]\d+)*(?:e-?\d+)?\s?(?:%|s\b|min\b|×|MiB|GiB|ms\b|times\b|hours?\b)|\d+\.\d+"
)


def written_by_hand():
    """README and the pages that no script writes."""
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("guide/*.md")]
    return [
        ROOT / "README.md",
        *(path for path in pages if path.name not in ("study.md", "pictures.md")),
    ]


@pytest.mark.parametrize("path", written_by_hand(), ids=lambda path: path.name)
def test_no_page_written_by_hand_has_a_measured_number(path):
    text = path.read_text(encoding="utf-8")
    for ignored in (
        r"```.*?```",
        r"`[^`]*`",
        r"\]\([^)]*\)|https?://\S+|arXiv[: ]\S+",
        r"\$[^$]*\$",
    ):
        text = re.sub(ignored, " ", text, flags=re.DOTALL)
    found = [
        text[max(0, match.start() - 40) : match.end() + 40] for match in MEASURED.finditer(text)
    ]
    left = [
        part for part in found if not any(allowed in " ".join(part.split()) for allowed in EXACT)
    ]
    assert not left, left


def test_the_import_contracts_hold():
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


STEPS = ["train", "sweep", "lipschitz", "attack", "harmonics", "report", "compare"]


@pytest.mark.parametrize("step", STEPS)
def test_every_step_is_a_project_with_the_main_projects_parameters(step):
    main = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    path = ROOT / "mlflow_projects" / step / "MLproject"
    alone = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert alone["entry_points"]["main"] == main["entry_points"][step]
    assert (path.parent / alone["conda_env"]).resolve() == ROOT / "conda.yaml"


def test_every_parameter_reaches_its_command():
    main = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    for point in main["entry_points"].values():
        used = set(re.findall(r"\{(\w+)\}", point["command"]))
        assert used == set(point["parameters"])


def test_dependencies_in_setup_cfg_allow_the_tested_versions():
    from configparser import ConfigParser

    from packaging.requirements import Requirement

    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    pins = {name.lower(): version for name, version in pins.items()}
    wanted = parser["options"]["install_requires"].split("\n")
    requirements = [Requirement(line) for line in wanted if line.strip()]
    assert len(requirements) > 10
    for requirement in requirements:
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement
