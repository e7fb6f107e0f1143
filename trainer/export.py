"""Between what was trained and what is deployed: meta-parameters to a `Model` and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pmeta.codegen.adaptation import Adaptation, AttentionModule, InputEncoding, LayerAttention, Model, UpdatedPart
from pmeta.codegen.errors import ConfigError, UnsupportedError
from pmeta.codegen.graph import Float32Array, Graph, frozen_float32
from pmeta.trainer.attention import PARTS
from pmeta.trainer.config import Config, not_exportable
from pmeta.trainer.inner_loop import InnerLoop, MetaParameters
from pmeta.trainer.networks import Network, convolution_for
from pmeta.trainer.operators import Tensors


def check_exportable(config: Config) -> None:
    """Raises ConfigError for what the trainer can do and the device cannot: the ablations of Tables 5 and 7."""
    what = not_exportable(config)
    if not what:
        return
    todo = "train for evaluation alone, --out NAME.pt, or leave it out"
    raise ConfigError(f"{what}, which the device does not know", "configuration", todo)


def to_model(
    graph: Graph, meta: MetaParameters, config: Config, encoding: InputEncoding, training: dict[str, Any]
) -> Model:
    """The model to deploy. What would never be read is left out: attention and α^Ch of layers that never learn.

    Raises ConfigError as `check_exportable` does.
    """
    check_exportable(config)
    alpha = _array(meta["alpha"])
    learning = {layer.name for layer, row in zip(graph.layers, alpha, strict=True) if row.any()}
    adaptation = Adaptation(
        method=config.method.name,
        ways=config.task.ways,
        shots=config.task.shots,
        alpha=alpha,
        updates=tuple(_parts(len(layer.weight_names)) for layer in graph.layers),
        rho_fw=config.method.rho_fw,
        rho_bw=config.method.rho_bw,
        encoding=encoding,
        attention={
            layer: LayerAttention(_module(modules.get("fw")), _module(modules.get("bw")))
            for layer, modules in meta["attention"].items()
            if layer in learning
        },
        alpha_in=_channel_tables(meta, "in", learning),
        alpha_out=_channel_tables(meta, "out", learning),
        sample_batch=config.device.sample_batch,
        training=training,
    )
    weights = {name: _array(tensor) for name, tensor in meta["weights"].items()}
    return Model(replace(graph, weights=weights), adaptation)


def _channel_tables(meta: MetaParameters, side: str, learning: set[str]) -> dict[str, Float32Array]:
    return {layer: _array(tables[side]) for layer, tables in meta["channel_alpha"].items() if layer in learning}


def _parts(count: int) -> tuple[UpdatedPart, ...]:
    return ("weight", "bias") if count == 2 else ("weight",)


def _module(parameters: Tensors | None) -> AttentionModule | None:
    return None if parameters is None else AttentionModule(*(_array(parameters[part]) for part in PARTS))


def _array(tensor: Tensor) -> Float32Array:
    return frozen_float32(tensor.detach().cpu().numpy())


def from_model(model: Model, device: torch.device) -> tuple[InnerLoop, MetaParameters]:
    """The inner loop and meta-parameters of an exported model, to evaluate it.

    Raises UnsupportedError for models that learn numbers, which the trainer cannot.
    """
    graph, adaptation = model.graph, model.adaptation
    if adaptation.regression:
        what = "learns numbers (mean squared error), the trainer's data sets teach classes"
        raise UnsupportedError(what, f"model '{graph.name}'", "measure it with pmeta-host simulate")
    inner = InnerLoop(
        network=Network(graph, convolution_for(device)),
        steps=adaptation.steps,
        learning=frozenset(weight.name for weight in model.learned_weights),
        rho_fw=adaptation.rho_fw,
        rho_bw=adaptation.rho_bw,
    )
    attention: dict[str, dict[str, Tensors]] = {}
    for layer, modules in adaptation.attention.items():
        directions = {"fw": modules.fw, "bw": modules.bw}
        attention[layer] = {
            direction: {part: _tensor(getattr(module, part), device) for part in PARTS}
            for direction, module in directions.items()
            if module is not None
        }
    channel_alpha: dict[str, Tensors] = {}
    for side, tables in (("in", adaptation.alpha_in), ("out", adaptation.alpha_out)):
        for layer, table in tables.items():
            channel_alpha.setdefault(layer, {})[side] = _tensor(table, device)
    weights = {name: _tensor(array, device) for name, array in graph.weights.items()}
    alpha = _tensor(adaptation.alpha, device)
    return inner, {"weights": weights, "alpha": alpha, "attention": attention, "channel_alpha": channel_alpha}


def _tensor(array: Float32Array, device: torch.device) -> Tensor:
    return torch.tensor(array, device=device)  # a copy: the array is read-only
