"""
Harmonic spectrum of a function
===============================

How fast does a function vary under a Gaussian? Its Hermite spectrum splits the variance into
degrees, and the mean degree is one number for it. Here the spectrum of a cosine is estimated from
samples and compared with what is known exactly, then that of two decoders.
"""

# %%
# A function whose spectrum is known
# ----------------------------------
#
# For z ~ N(0, 1) and g(z) = cos(ωz) the weight of degree k is :math:`\omega^{2k} e^{-\omega^2}/k!`
# for even k and 0 for odd k: the faster the cosine, the higher the degrees.

from math import exp, factorial

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from harmonicvae import HarmonicVAE, hermite_spectrum

figure, panels = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
for axes, omega in zip(panels, (1.0, 2.0), strict=True):
    found = hermite_spectrum(lambda z, w=omega: torch.cos(w * z), [0.0], 1.0, random_state=0)
    degrees = found.abscissa.astype(int)
    exact = [(k % 2 == 0) * omega ** (2 * k) * exp(-(omega**2)) / factorial(k) for k in degrees]
    axes.bar(degrees, exact, color="0.85", label="exact")
    reach = np.maximum(0, [found.values - found.lower, found.upper - found.values])
    axes.errorbar(
        degrees, found.values, reach, fmt="o", color="#0072B2", capsize=3, label="estimate, 95 %"
    )
    mean_degree = found["mean_degree"]
    axes.set_title(f"cos(ωz), ω = {omega:g}: mean degree {mean_degree.value:.2f}")
    axes.set_xlabel("degree k")
panels[0].set_ylabel("weight $W_k$")
panels[0].legend()

# %%
# Two decoders
# ------------
#
# The theory says that a larger standard deviation σ_enc of the code suppresses the high degrees of
# the decoder. Each decoder is looked at under a Gaussian of the same width around the prior's
# mean.

images = load_digits().data / 8 - 1
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
looks = {0.1: ("#D55E00", "s--"), 1.0: ("#0072B2", "o-")}
for encoder_std, (color, style) in looks.items():
    vae = HarmonicVAE(
        latent_dim=8,
        hidden_dims=(64,),
        activation="tanh",
        encoder_std=encoder_std,
        max_epochs=30,
        batch_size=64,
        lr=3e-3,
        random_state=0,
    ).fit(images)
    found = hermite_spectrum(vae.decoder_, np.zeros(8), 1.0, n_samples=2000, random_state=0)
    share = found.values[1:] / found["variance"].value
    label = rf"$\sigma_{{enc}}$ = {encoder_std:g}, mean degree {found['mean_degree'].value:.2f}"
    axes.plot(found.abscissa[1:], share, style, color=color, label=label)
axes.set(yscale="log", ylim=(1e-4, 1), xlabel="degree k", ylabel="share of the variance")
axes.legend()
plt.show()
