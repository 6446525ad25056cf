"""The state of a net in training: what a checkpoint holds and how a new net takes it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from harmonicvae.exceptions import InputError
from harmonicvae.models import callback_states
from harmonicvae.models.plain import is_plain, to_plain


def training_state(net: Any) -> dict[str, Any]:
    """Return all that decides how training goes on.

    Parameters
    ----------
    net : VAENet
        In training.

    Returns
    -------
    dict
        Tensors and plain values only: module, frozen parameters, optimiser, generators,
        history, what the callbacks remember, names of those that asked to stop.
    """
    optimizer = net.optimizer_.state_dict()
    optimizer["param_groups"] = to_plain(optimizer["param_groups"])
    parameters = net.module_.named_parameters()
    return {
        "module": net.module_.state_dict(),
        "frozen": [name for name, value in parameters if not value.requires_grad],
        "optimizer": optimizer,
        "order_generator": net.order_generator_.get_state(),
        "noise_generator": net.noise_generator_.get_state(),
        "global_generator": torch.get_rng_state(),
        "history": [_plain_epoch(row) for row in net.history],
        "callbacks": {
            name: callback_states.changes(callback, net.callback_snapshots_[name])
            for name, callback in net.remembering()
        },
        "stopped_by": list(net.stopped_by_),
    }


def load_training_state(net: Any, state: Mapping[str, Any]) -> None:
    """Continue from a :func:`training_state`, but for the callbacks' part of it.

    Parameters
    ----------
    net : VAENet
        Initialised, of the same architecture.
    state : mapping
        From :func:`training_state`.

    Raises
    ------
    InputError
        If the state does not fit the net, or a learning-rate schedule is given in one of
        the two fits only, or a callback keeps what no checkpoint can hold.
    """
    try:
        _check_callbacks(dict(net.remembering()), state["callbacks"])
        _load_weights(net, state)
        net.order_generator_.set_state(state["order_generator"])
        net.noise_generator_.set_state(state["noise_generator"])
        torch.set_rng_state(state["global_generator"])
        for row in state["history"]:
            _append_epoch(net, row)
    except InputError:
        raise
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"cannot resume: the checkpoint does not fit this model and device ({error}); "
            "use the former ones, or leave resume_from away to start anew"
        ) from error


def resume_callbacks(net: Any, state: Mapping[str, Any]) -> None:
    """Give the callbacks their memory back and undo what their ``on_train_begin`` changed.

    Parameters
    ----------
    net : VAENet
        After ``on_train_begin``.
    state : mapping
        From :func:`training_state`.

    Raises
    ------
    InputError
        If a callback of the same name is of another kind.
    """
    present = dict(net.callbacks_)
    try:
        for name, memory in state["callbacks"].items():
            if name in present:
                callback_states.restore(present[name], memory["kept"])
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"cannot resume: callback {name!r} does not fit the checkpoint ({error!r}); use the "
            "former callbacks, or leave resume_from away to start anew"
        ) from error
    _load_weights(net, state)
    net.stopped_by_ = [name for name in state["stopped_by"] if name in present]


def _load_weights(net: Any, state: Mapping[str, Any]) -> None:
    net.module_.load_state_dict(state["module"])
    net.optimizer_.load_state_dict(state["optimizer"])
    for name, parameter in net.module_.named_parameters():
        parameter.requires_grad_(name not in state["frozen"])


def _append_epoch(net: Any, row: Mapping[str, Any]) -> None:
    net.history.new_epoch()
    for key, value in row.items():
        net.history.record(key, value)
    for prefix in ("train", "valid"):
        if prefix + "_loss" in row:
            net.summarise_batches(prefix, row[prefix + "_loss"], 1)


def _check_callbacks(present: Mapping[str, Any], former: Mapping[str, Any]) -> None:
    """Refuse schedules given in one fit only, and memories that could not be stored."""
    missing = [
        name
        for name, memory in former.items()
        if name not in present and callback_states.steers_training(memory["kept"])
    ]
    added = [
        name
        for name, callback in present.items()
        if name not in former and hasattr(callback, "lr_scheduler_")
    ]
    if missing or added:
        raise InputError(
            f"cannot resume: callbacks {missing + added} must be given in both fits or in "
            "neither; use the former callbacks, or leave resume_from away to start anew"
        )
    for name in present:
        lost = former.get(name, {"lost": []})["lost"]
        if lost:
            raise InputError(
                f"cannot resume: callback {name!r} keeps {lost}, which no checkpoint can hold; "
                "give it the methods state_dict and load_state_dict, or leave it away"
            )


def _plain_epoch(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an epoch's plain figures, whoever recorded them."""
    plain = {key: to_plain(value) for key, value in row.items() if key != "batches"}
    return {key: value for key, value in plain.items() if is_plain(value)}
