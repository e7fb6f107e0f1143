"""What training leaves behind, ready to adapt: from model.onnx, or from a file of parameters (.pt).

A file of parameters holds what the trainer can do and the device cannot (`check_exportable`), for evaluation alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from pmeta.codegen.adaptation import InputEncoding, Model
from pmeta.codegen.errors import ConfigError, DataError, ModelError
from pmeta.codegen.graph import Shape
from pmeta.codegen.modelfile import load_model
from pmeta.trainer.checkpoint import load_checkpoint, save_checkpoint
from pmeta.trainer.config import Config, config_from_dict
from pmeta.trainer.export import from_model
from pmeta.trainer.inner_loop import InnerLoop, MetaParameters
from pmeta.trainer.meta_learner import initial_meta_parameters, inner_loop, network_graph

SUFFIX = ".pt"


@dataclass(frozen=True)
class Trained:
    """A meta-trained network and how it adapts."""

    inner: InnerLoop
    meta: MetaParameters
    shots: int  # it was trained for so many
    sample_batch: int  # samples per micro-batch on the device
    encoding: InputEncoding
    record: Mapping[str, Any]  # how it was trained: configuration, data, versions
    model: Model | None = None  # the content of model.onnx; None: a file of parameters

    @property
    def ways(self) -> int:
        return int(self.inner.graph.output_shape[0])


def load_trained(path: Path, device: torch.device) -> Trained:
    """From either kind of file; raises DataError, ModelError or UnsupportedError."""
    if path.suffix == SUFFIX:
        return _from_parameters(path, device)
    model = load_model(path)
    adaptation = model.adaptation
    inner, meta = from_model(model, device)
    return Trained(
        *(inner, meta, adaptation.shots, adaptation.sample_batch, adaptation.encoding, adaptation.training), model
    )


def save_parameters(
    path: Path,
    config: Config,
    input_shape: Shape,
    encoding: InputEncoding,
    meta: MetaParameters,
    record: dict[str, Any],
) -> None:
    """Write a file of parameters; raises DataError."""
    content = {
        "config": config.as_dict(),
        "input_shape": list(input_shape),
        "encoding": asdict(encoding),
        "meta": tree_map(lambda t: t.detach().cpu(), meta),
        "record": record,
    }
    save_checkpoint(path, {"parameters": content})


def _from_parameters(path: Path, device: torch.device) -> Trained:
    content, where = load_checkpoint(path).get("parameters"), str(path)
    if not isinstance(content, Mapping):
        raise DataError("is a checkpoint to resume, no trained model", where, "evaluate what --out named")
    try:
        config = config_from_dict(content["config"], where)
        encoding = InputEncoding(**{key: _as_tuple(value) for key, value in content["encoding"].items()})
        rng = np.random.default_rng(0)
        inner = inner_loop(network_graph(config, tuple(content["input_shape"]), rng), config, device)
        expected, structure = tree_flatten(initial_meta_parameters(inner, config, rng, device))
        values, found = tree_flatten(content["meta"])
        if found != structure or [v.shape for v in values] != [e.shape for e in expected]:
            raise ValueError("other parameters than the configuration's")
        meta = tree_unflatten([value.to(device) for value in values], structure)
        record = dict(content["record"])
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError, ModelError) as error:
        raise DataError(f"is damaged ({error})", where, "train again") from error
    return Trained(inner, meta, config.task.shots, config.device.sample_batch, encoding, record)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
