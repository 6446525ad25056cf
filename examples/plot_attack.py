"""
Attacking a small model
=======================

How much can a perturbation of bounded size change what a variational autoencoder reconstructs?
The attack searches for the largest change, the product of the certified Lipschitz bounds says
what no attack can exceed.
"""

# %%
# A model of digits. The code's standard deviation σ_enc is chosen, not learned.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from harmonicvae import HarmonicVAE, attack, bound

images = load_digits().data / 8 - 1
train, test = images[:1500], images[1500:]
models = {
    encoder_std: HarmonicVAE(
        latent_dim=8,
        hidden_dims=(64,),
        activation="tanh",
        encoder_std=encoder_std,
        max_epochs=30,
        batch_size=64,
        lr=3e-3,
        random_state=0,
    ).fit(train)
    for encoder_std in (0.1, 1.0)
}

# %%
# One attack, looked at
# ---------------------
#
# Every perturbation has a norm of at most 2, and the attacked image stays in the range of the
# pixels. The second row is what the encoder sees, the fourth what the decoder makes of it.

radius = 2.0
shown = test[:6]
vae = models[0.1]
found = attack(vae.encoder_, vae.decoder_, shown, radius, box=(-1, 1), random_state=0)
rows = {
    "image": shown,
    "attacked": shown + found.perturbation,
    "decoding": found.decoding,
    "attacked\ndecoding": found.attacked_decoding,
}
figure, panels = plt.subplots(4, 6, figsize=(6, 4.4), layout="constrained")
for row, (title, pictures) in zip(panels, rows.items(), strict=True):
    for axes, picture in zip(row, pictures, strict=True):
        axes.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[])
    row[0].set_ylabel(title)

# %%
# Damage over the radius
# ----------------------
#
# The largest damage over some images, without a limit on pixels, beside the certified bound: the
# product of the encoder's and the decoder's constants, times the radius. The truth lies between.

radii = [0.25, 0.5, 1.0, 2.0, 4.0]
figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for (encoder_std, vae), color, marker in zip(
    models.items(), ("#D55E00", "#0072B2"), "so", strict=True
):
    limits = bound(vae.encoder_), bound(vae.decoder_)
    results = attack(vae.encoder_, vae.decoder_, test[:32], radii, bounds=limits, random_state=0)
    damage = [result.damage.max() for result in results]
    certified = np.array(radii) * limits[0].value * limits[1].value
    label = rf"$\sigma_{{enc}}$ = {encoder_std:g}"
    axes.plot(radii, damage, f"{marker}-", color=color, label=f"{label}, attack")
    axes.plot(radii, certified, "--", color=color, label=f"{label}, certified bound")
axes.set(xscale="log", yscale="log", xlabel="ℓ2 radius C", ylabel="damage")
axes.set_xticks(radii, [f"{value:g}" for value in radii])
axes.minorticks_off()
axes.legend(fontsize="small")
plt.show()
