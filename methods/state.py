"""A fitted method as arrays and JSON: it can be stored, and read back without running code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from methods.groups import GroupMeans

#: Attributes that are no result of a fit, or that are stored beside the state.
LEFT_OUT = ("config", "history", "unconverged", "log")


def state_of(method: Any) -> dict[str, Any] | None:
    """Return all attributes of a fitted method: arrays by name, and a JSON string that refers to them.

    An attribute may be None, a number, a string, an array of numbers, a :class:`methods.groups.GroupMeans`, or a list,
    tuple or dictionary of these. A PyTorch network is stored by its weights if the class defines ``untrained``. If any
    attribute is of another kind, the method cannot be stored and the result is None.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        tree = {
            name: _pack(method, name, value, arrays) for name, value in vars(method).items() if name not in LEFT_OUT
        }
    except TypeError:
        return None
    return {"attributes.json": json.dumps(tree), **arrays}


def restore(method: Any, state: Mapping[str, Any]) -> None:
    """Set the attributes of ``method`` to those that :func:`state_of` returned."""
    tree = json.loads(state["attributes.json"])
    networks = {name for name, node in tree.items() if isinstance(node, dict) and "network" in node}
    for name in sorted(tree, key=lambda name: name in networks):  # the others say how a network is built
        setattr(method, name, _unpack(method, name, tree[name], state))


def _pack(method: Any, name: str, value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return ``value`` as JSON, its arrays in ``arrays`` under names that start with ``name``."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is np.ndarray and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8 and value.ndim:
        arrays[name] = value
        return {"array": name}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return {"number": value.item(), "dtype": value.dtype.name}
    if isinstance(value, GroupMeans):
        arrays[name] = np.stack(list(value.values()))
        return {"means": name, "groups": [[*pair, value.sizes[pair]] for pair in value]}
    if type(value) in (list, tuple, dict):
        parts = value.items() if isinstance(value, dict) else value
        return {type(value).__name__: [_pack(method, f"{name}.{i}", part, arrays) for i, part in enumerate(parts)]}
    if hasattr(value, "state_dict") and hasattr(method, "untrained"):
        weights = {key: tensor.cpu().numpy() for key, tensor in value.state_dict().items()}
        arrays |= {f"{name}.{key}": weight for key, weight in weights.items()}
        return {"network": list(weights)}
    raise TypeError(f"{name} is a {type(value).__name__}")


def _unpack(method: Any, name: str, node: Any, arrays: Mapping[str, Any]) -> Any:
    """Return the value that :func:`_pack` returned as ``node``."""
    match node:
        case {"array": key}:
            return arrays[key]
        case {"number": number, "dtype": dtype}:
            return np.dtype(dtype).type(number)
        case {"means": key, "groups": groups}:
            pairs = [(environment, content) for environment, content, _ in groups]
            means = dict(zip(pairs, arrays[key], strict=True))
            return GroupMeans(means, {pair: group[2] for pair, group in zip(pairs, groups, strict=True)})
        case {"network": keys}:
            import torch

            network = method.untrained()
            network.load_state_dict({key: torch.from_numpy(arrays[f"{name}.{key}"]) for key in keys})
            return network.eval()
        case {"list": parts}:
            return [_unpack(method, name, part, arrays) for part in parts]
        case {"tuple": parts}:
            return tuple(_unpack(method, name, part, arrays) for part in parts)
        case {"dict": parts}:
            return dict(_unpack(method, name, part, arrays) for part in parts)
    return node
