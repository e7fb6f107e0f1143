"""The methods: each is a choice of settings of the one inner loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

Layers = Literal["all", "last", "body"]
Directions = Literal["none", "forward", "backward", "both"]
Sparsify = Literal["gradient", "input", "output_gradient"]

DIRECTIONS: dict[str, tuple[str, ...]] = {  # keys of the attention modules
    "none": (),
    "forward": ("fw",),
    "backward": ("bw",),
    "both": ("fw", "bw"),
}


@dataclass(frozen=True)
class MethodConfig:
    """The inner loop. None: what `METHODS` says for `name`."""

    name: str = "p-meta-3.2+3.3"
    steps: int = 5  # K
    alpha: float = 0.05  # initial step size of every layer and step
    first_order: bool = False  # take the loss gradients of the inner loop as constants
    layers: Layers | None = None  # which learn: body is all but the last
    learn_alpha: bool | None = None
    penalty: float | None = None  # λ of Eq. 9, with m normalized to sum to 1 over the layers
    lasso_cost: Literal["activations", "ram"] = "activations"  # m of Eq. 9: inputs of layers, or what the planner says
    channel_alpha: bool | None = None  # α^Ch: learned factors of α per input and output channel
    attention: Directions | None = None  # on all layers but the last
    sparsify: Sparsify = "gradient"  # what attention weighs: weight gradients, x_{l-1} itself, or g(y_l) itself
    rho_fw: int = 300  # clip ratio ρ of forward attention, thousandths
    rho_bw: int = 0
    frozen_layers: tuple[str, ...] = ()  # more layers whose step size stays exactly 0


MAML: dict[str, Any] = {
    "layers": "all",
    "learn_alpha": False,
    "penalty": 0.0,
    "channel_alpha": False,
    "attention": "none",
}
MAML_PLUS_PLUS = MAML | {"learn_alpha": True}
P_META_LAYERS = MAML_PLUS_PLUS | {"penalty": 3.0}

METHODS: dict[str, dict[str, Any]] = {
    "maml": MAML,
    "anil": MAML | {"layers": "last"},
    "boil": MAML | {"layers": "body"},
    "maml++": MAML_PLUS_PLUS,
    "p-meta-3.2": P_META_LAYERS,
    "p-meta-3.2+alpha-ch": P_META_LAYERS | {"channel_alpha": True},
    "p-meta-3.2+3.3": P_META_LAYERS | {"attention": "both"},
}


def resolved(method: MethodConfig) -> MethodConfig:
    """`method` with everything that it leaves open filled in; its name is one of METHODS."""
    defaults = METHODS[method.name]
    if method.learn_alpha is False:  # nothing to price
        defaults = defaults | {"penalty": 0.0}
    if method.layers == "last":  # nothing below learns
        defaults = defaults | {"attention": "none"}
    return replace(method, **{key: value for key, value in defaults.items() if getattr(method, key) is None})
