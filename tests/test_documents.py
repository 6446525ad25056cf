"""Documents say what the files say, and the README's lines are those that are tested."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def experiments():
    spec = importlib.util.spec_from_file_location("experiments", ROOT / "docs" / "experiments.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_experiments_are_rendered_from_the_result_files():
    assert (ROOT / "EXPERIMENTS.md").read_text(encoding="utf-8") == experiments().render()


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
