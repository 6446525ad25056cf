"""Write docs/study.md from the files in results/ only.

    python docs/study_page.py

A test writes it again and compares.  Where a sentence says more than a number (that something
holds in every cell, say), the claim is checked while the page is written.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import figures as study_figures
import numpy as np
import pandas as pd
import study_tables

from harmonicvae import names
from harmonicvae.report import discrepancy_table, findings, lipschitz_table
from harmonicvae.report.results import Results

PAGE = study_tables.ROOT / "docs" / "study.md"
PICTURES = study_tables.ROOT / "docs" / "pictures.md"
FIGURES = study_tables.ROOT / "docs" / "figures"
_CONVOLUTIONS = """Three convolutions of stride 2 with 8, 16 and 32 channels and ELU, a linear layer
to a code of 64 numbers, and the reverse for the decoder. These are not the networks of the paper,
whose values stand beside for their magnitude.
"""
_TRENDS = (
    "lower bound",
    "upper bound",
    "E‖J‖²",
    "mean degree",
    "spectral centroid",
    "share above 4 cycles",
)


def picture(stem: str, alt: str) -> str:
    """Return a figure; a missing one is an error."""
    path = FIGURES / f"{stem}.png"
    if not path.exists():
        raise FileNotFoundError(f"{path}: run docs/figures.py first")
    return f"![{alt}](figures/{path.name})\n"


def span(values: object, form: str = ".3g") -> str:
    """Return the least and the largest of some numbers."""
    numbers = np.asarray(values, dtype=float)
    low, high = (format(number, form) for number in (numbers.min(), numbers.max()))
    return low if low == high else f"{low} to {high}"


def page() -> str:
    """Return the whole page."""
    found = study_tables.studies()
    parts = [_introduction(found), _measured(found), _explained(found)]
    parts += [_attacked(), _frequencies(found), _limits(found)]
    return "\n".join(parts)


def _introduction(found: dict[str, Results]) -> str:
    claims = "\n".join(
        f"| {study_tables.TITLES[name]} | {' '.join(findings(results)['Claimed'])} |"
        for name, results in found.items()
    )
    return f"""# The study in ten minutes

A variational autoencoder whose encoder standard deviation σ_enc is fixed, and whose inputs get
noise of standard deviation σ_N in training: [Camuto and Willetts](https://arxiv.org/abs/2105.14866)
claim that a larger σ_enc makes the decoder smoother and a larger σ_N the encoder: less content of
high frequency, and so a smaller Lipschitz constant. A reproduction of 2022 found constants that are
orders of magnitude larger and ended with the sentence that it is not understood where the
deviation comes from. This page says where. Every number in it is rendered from files in
results/, as is every table; the commands that
wrote them stand in [EXPERIMENTS](experiments.md); reconstructions, attacks and spectra are
[pictures of their own](pictures.md).

## What was claimed

| data | published ℓ2 Lipschitz constants |
|---|---|
{claims}
"""


def _measured(found: dict[str, Results]) -> str:
    parts = [
        "## What was measured\n",
        picture(
            "constants",
            "Intervals from lower to certified upper bound of every network, beside the values of "
            "the paper and of the reproduction",
        ),
        "Upper bounds are proved with all rounding errors (LipSDP-Neuron of the whole network, "
        "with ranges of the activations propagated), lower bounds are norms of Jacobians found by "
        "search. The constant of each network lies between the two.\n",
    ]
    for title, results in study_tables.titled(found).items():
        study = results.study
        parts.append(
            f"### {title}: {study['n_train']} samples, "
            f"{study['epochs']} epochs, {len(study['seeds'])} seeds\n"
        )
        if study.get("model") == "conv":
            parts.append(_CONVOLUTIONS)
        parts.append(study_tables.short_constants(results) + "\n")
        sentences = [text for text in findings(results)["Measured"] if not text.startswith("From")]
        parts.append(" ".join([*sentences, *_typical(results)]) + "\n")
        parts.append(study_tables.trends(results, _TRENDS) + "\n")
    shared = study_tables.identical(found[names.SINC]) if names.SINC in found else None
    if shared is not None:
        parts.append(
            "The configuration that both columns share (σ_enc = 0.5, σ_N = 0) was trained a second "
            f"time for every seed of sinc: the weights differ by at most {shared['worst']:.2g} of "
            "the largest, so nothing in the tables is due to chance in training beyond the seed.\n"
        )
    return "\n".join(parts)


def _typical(results: Results) -> list[str]:
    """Return how the paper's constants of the decoder compare with typical Jacobians."""
    table = lipschitz_table(results.models)
    rows = table[(table[names.SIDE] == "decoder") & table["paper_mean"].notna()]
    column = names.harmonic_metric(names.JACOBIAN_ENERGY, "decoder")
    if column not in results.models or rows.empty:
        return []
    pairs = rows[[names.ENCODER_STD, names.INPUT_NOISE_STD]].itertuples(index=False, name=None)
    energies = [study_tables.cell(results, pair, column).mean() for pair in pairs]
    typical = np.sqrt(energies)
    values = ", ".join(f"{value:.3g}" for value in typical)
    stds = ", ".join(f"{std:g}" for std in rows[names.ENCODER_STD])
    paper = ", ".join(f"{value:g}" for value in rows["paper_mean"])
    return [
        "A typical slope is another matter: the root of E‖J‖² under the prior, where the codes "
        f"lie, is {values} for the decoders with σ_enc = {stds}, beside the paper's {paper}, "
        f"which are {span(rows['paper_mean'].to_numpy() / typical)} times that."
    ]


def _explained(found: dict[str, Results]) -> str:
    apart = {name: results for name, results in found.items() if len(results.discrepancy)}
    parts = [
        "## What explains the difference\n",
        picture(
            "factors",
            "From the constant done right, over the errors of evaluation, to all errors, beside "
            "the reproduction's seeds",
        ),
        "Each error of the reproduction is a switch here, off by default. Switched on one at a "
        "time and all together, on models trained for the purpose:\n",
    ]
    tables = {name: discrepancy_table(results.discrepancy) for name, results in apart.items()}
    tables = {name: table[table["published"].notna()] for name, table in tables.items()}
    for name, table in tables.items():
        slope = table["slope_1"].dropna()
        if len(slope) and not np.allclose(slope, 64.0, rtol=1e-3):
            raise AssertionError(f"{name}: slope 1 does not multiply by 4³ everywhere")
        sentences = findings(apart[name])["Explained"]
        parts.append(f"### {study_tables.TITLES[name]}\n")
        parts.append(study_tables.discrepancy(apart[name]) + "\n")
        exact = [text for text in sentences if "known exactly" in text]
        parts.append(" ".join([sentences[-1], *exact]) + "\n")
    slopes = [table["slope_1"].dropna() for table in tables.values()]
    single = [table["single_matrices"].dropna() for table in tables.values()]
    training = [
        table[column].dropna()
        for table in tables.values()
        for column in ("squared_std", "noisy_target", "shared_noise", "kl_form")
    ]
    parts.append(
        "The main error is one number: the sigmoid's slope is at most ¼, the reproduction used 1. "
        f"Over three hidden layers that multiplies every bound by {span(np.concatenate(slopes))}. "
        "LipSDP run matrix by matrix is the product of norms, "
        f"{span(np.concatenate(single))} times the bound of the whole network. The errors of "
        "training change the networks themselves: one alone multiplies the bound by "
        f"{span(np.concatenate(training))}, and they act in different directions.\n"
    )
    return "\n".join(parts)


def _attacked() -> str:
    if not study_tables.TABLE_4.exists():
        return ""
    table = study_tables.table_4()
    right = table[table["variant"] == "right"]
    wide = right.drop(columns="variant").pivot_table(
        index=[names.ENCODER_STD, names.INPUT_NOISE_STD], columns=names.RADIUS, sort=False
    )
    small, large = sorted(right[names.RADIUS].unique())

    def ratio(column: str) -> np.ndarray:
        means = wide[f"{column}_mean"]
        return (means[large] / means[small]).to_numpy()

    damage, degradation = ratio(names.DAMAGE), ratio(names.DEGRADATION)
    formula = np.abs(
        wide[f"{names.REPRODUCTION_DEGRADATION}_mean"][large]
        - wide[f"{names.REPRODUCTION_DEGRADATION}_mean"][small]
    ).to_numpy()
    papers = study_tables.degradations("paper")
    ours = right.groupby(names.RADIUS)[f"{names.DEGRADATION}_mean"].min()
    if (ours.to_numpy() <= papers).any():
        raise AssertionError("a degradation is as large as the paper's")
    if damage.min() <= 1 or degradation.min() <= 1:
        raise AssertionError("an attack of twice the size does not always do more damage")
    return f"""## Attacks

The largest damage ‖g(p(x+δ)) − g(p(x))‖₂ over ‖δ‖₂ ≤ C at {int(right["images"].max())} images of
CIFAR10, every σ of both columns:

{study_tables.attacks()}

The paper reports a degradation of {_published("paper")} at C = {small:g} and {large:g}, the
reproduction {_published("reproduction")} by its own formula, both at one image. Ours are nearer
to 0 than the paper's, for every σ.

The reproduction found its models robust to the size of the attack. They are not: twice the radius
does {span(damage)} times the damage and {span(degradation)} times the degradation of the
likelihood. The reproduction's formula, mean(log|a−b| / log|a|) over pixels, is no likelihood;
between the two radii it moves by {span(formula)}, in either direction.

{picture("cifar10-attack-e1-n0", "An image, two attacked images, and their decodings")}
Three slips of the reproduction, once each, on the model with σ_enc = 1: the encoder of one network
with the decoder of another ("mixed"), images in [0, 1] instead of [−1, 1] ("unit_range"), rows and
columns exchanged ("transposed"). They multiply the damage by
{_slips()}.

{study_tables.attacks(variants=True)}
"""


def _published(source: str) -> str:
    return " and ".join(f"{value:g}" for value in study_tables.degradations(source))


def _slips() -> str:
    """Return the damage with each slip over the damage without, at the same images."""
    attacks = pd.read_csv(study_tables.TABLE_4)
    slips = attacks[attacks["variant"] != "right"]
    same = attacks[
        (attacks["variant"] == "right")
        & attacks[names.MODEL].isin(slips[names.MODEL])
        & (attacks[names.IMAGE] <= slips[names.IMAGE].max())
    ]
    usual = same.groupby(names.RADIUS)[names.DAMAGE].mean()
    told = []
    for variant, group in slips.groupby("variant", sort=False):
        means = group.groupby(names.RADIUS)[names.DAMAGE].mean()
        told.append(f"{span((means / usual).to_numpy())} ({variant})")
    return ", ".join(told)


def _frequencies(found: dict[str, Results]) -> str:
    parts = [
        "## Frequencies\n",
        picture(
            "harmonics",
            "Mean Hermite degree and share of power above four cycles over σ_enc and σ_N, every "
            "seed a point",
        ),
        "The theory is about frequency content, which neither the paper's tables nor the "
        "reproduction measure. Sampled, with intervals over seeds:\n",
    ]
    for title, results in study_tables.titled(found).items():
        told = [
            text
            for text in findings(results)["Measured"]
            if "mean degree" in text or "4 cycles" in text
        ]
        parts.append(f"- **{title}.** " + " ".join(told))
    return "\n".join(parts) + "\n"


def _limits(found: dict[str, Results]) -> str:
    lines = [
        f"- **{title}.** " + " ".join(findings(results)["Limits"])
        for title, results in study_tables.titled(found).items()
    ]
    ratios = np.concatenate(
        [lipschitz_table(results.models)["ratio_mean"].dropna() for results in found.values()]
    )
    return f"""## Limits

{chr(10).join(lines)}
- **Upper bounds and order.** A bound that is {span(ratios)} times its lower bound may order two
  networks the other way round than their constants. The lower bounds are the better guide to the
  order, but they are the result of a search.
- **The paper's numbers.** {_outside(found)} How they were computed is not known here; on CIFAR10
  they are near to typical slopes; on sinc, where those did not collapse, near to the exact
  constants of decoders trained with the reproduction's errors, σ² for σ among them.
"""


def pictures() -> str:
    """Return the page with the figures of single data sets."""
    shown = "\n".join(
        f"```{{figure}} figures/{stem}.png\n:alt: {caption}\n\n{caption}\n```\n"
        for stem, caption in study_figures.captions().items()
    )
    return f"""# Pictures of the study

Drawn from the files in results/ by `python docs/figures.py`: the figures that the original study
numbers 2 to 9, and spectra. Models of one seed. CelebA's licence forbids to pass its images on;
your own report has them.

{shown}"""


def _outside(found: dict[str, Results]) -> str:
    """Say in how many cells the paper's constant is outside our interval."""
    below = above = total = 0
    for results in found.values():
        table = lipschitz_table(results.models)
        rows = table[table["paper_mean"].notna()]
        upper = "upper_best_mean" if "upper_best_mean" in rows else "upper_lipsdp_neuron_mean"
        total += len(rows)
        below += int((rows["paper_mean"] < rows["lower_mean"]).sum())
        above += int((rows["paper_mean"] > rows[upper]).sum())
    return (
        f"They lie below our lower bounds in {below} of {total} cells, above our certified upper "
        f"bounds in {above}: they are no global constants of networks trained like ours."
    )


def main() -> None:
    """Write the pages."""
    PAGE.write_text(page(), encoding="utf-8")
    PICTURES.write_text(pictures(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
