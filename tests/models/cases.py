"""What the tests of the estimator share."""

import torch


def weights(vae):
    """All weights of a fitted estimator in one vector."""
    return torch.cat([value.flatten() for value in vae.net_.module_.state_dict().values()])
