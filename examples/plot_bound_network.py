"""
Bounding any torch network
==========================

The ℓ2 Lipschitz constant of a classifier says how far its outputs can move when its input does.
Here it is bounded from both sides for a small network of our own, and then used: the radius
around an image within which no perturbation can change the predicted class.
"""

# %%
# A classifier of digits, with nothing of this package in it.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from harmonicvae import LayeredNetwork, bound, bracket

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.data / 8 - 1, dtype=torch.float32)
labels = torch.tensor(digits.target)

network = nn.Sequential(
    nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10)
)
optimiser = torch.optim.Adam(network.parameters(), lr=3e-3, weight_decay=1e-3)
for _ in range(150):
    optimiser.zero_grad()
    nn.functional.cross_entropy(network(images[:1300]), labels[:1300]).backward()
    optimiser.step()
network.eval()
test, truth = images[1300:], labels[1300:]
print(f"{(network(test).argmax(1) == truth).float().mean():.0%} of the test images are recognised")

# %%
# Upper and lower bounds
# ----------------------
#
# Every upper bound is certified: no two inputs have outputs farther apart than that many times
# their distance. The methods differ in what they cost and how close they come to the constant,
# which cannot be below the largest Jacobian norm found.

methods = ["norm_product", "eclipse_fast", "lipsdp_layer", "lipsdp_neuron"]
upper = {method: bound(network, method) for method in methods}
lower = bracket(network, test.numpy(), "norm_product").lower

figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
values = [upper[method].value for method in methods]
axes.hlines(methods, lower.value, values, color="0.8", linewidth=2)
axes.plot(values, methods, "o", color="#0072B2", label="certified upper bound")
axes.axvline(lower.value, color="#D55E00", linestyle="--", label="lower bound")
axes.set(xlim=(0, None), xlabel="Lipschitz constant of the logits")
axes.invert_yaxis()
axes.legend()

# %%
# Certified radii
# ---------------
#
# Class a is kept as long as the difference of the logits a and b stays positive for every b. That
# difference is a network of its own: the last layer's rows are subtracted. An image whose
# difference is d keeps its class within the radius d over the constant of that network.

layers = LayeredNetwork.from_module(network)
logits = network(test).detach().double().numpy()
predicted = logits.argmax(1)


def certified_radii(method):
    """Return the radius within which each test image keeps its (right) class; 0 if it is wrong."""
    radii = np.full(len(logits), np.inf)
    for one in range(10):
        for other in set(range(10)) - {one}:
            rows = predicted == one
            *hidden, last = layers.weights
            *biases, offset = layers.biases
            difference = LayeredNetwork.from_arrays(
                [*hidden, last[[one]] - last[[other]]],
                [*biases, offset[[one]] - offset[[other]]],
                layers.activations,
            )
            gaps = logits[rows, one] - logits[rows, other]
            radii[rows] = np.minimum(radii[rows], gaps / bound(difference, method).value)
    return np.where(predicted == truth.numpy(), radii, 0.0)


figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
styles = {"norm_product": ("#D55E00", "--"), "lipsdp_neuron": ("#0072B2", "-")}
for method, (color, line) in styles.items():
    radii = np.sort(certified_radii(method))
    share = 1 - np.arange(len(radii)) / len(radii)
    axes.step(radii, share, where="pre", color=color, linestyle=line, label=method)
axes.set(xlabel="ℓ2 radius, in units of the pixels' range [−1, 1]", xlim=(0, None), ylim=(0, 1))
axes.set_ylabel("share of test images certified")
axes.legend(title="with the bound")
plt.show()
