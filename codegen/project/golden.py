"""Golden vectors: what the bit-exact reference computes for a few fixed samples, as a C header for `pio test`.

The reference is the simulator, which the generator must not import (trainer -> codegen <- host). It registers itself as
an entry point of the group `pmeta.reference`, and is asked through it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import BuildError
from pmeta.codegen.numerics import STRICT, VARIANTS, Numerics
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.project.support_files import targets_array
from pmeta.codegen.report.macs import program_macs
from pmeta.codegen.targets import Target

ENTRY_POINT_GROUP = "pmeta.reference"
SUPPORT_SAMPLES = 3
MAX_MACS = 500_000_000  # of all steps over all support samples: half a second in the simulator, seconds on a board


@dataclass(frozen=True)
class GoldenTask:
    """Fixed pseudo-random input: the bytes of support samples and one query, and what they teach."""

    support: tuple[bytes, ...]
    targets: tuple[Target, ...]
    query: bytes


@dataclass(frozen=True)
class GoldenAnswers:
    """What the reference answers, all as canonical little-endian bytes."""

    logits: tuple[tuple[bytes, ...], ...]  # [step][sample]
    losses: tuple[tuple[bytes, ...], ...]  # [step][sample]
    tensor_crcs: tuple[tuple[int, ...], ...]  # [step][learned tensor], after the step
    query_logits: bytes  # after the last step


Reference = Callable[[Model, GoldenTask, tuple[str, ...], Numerics], GoldenAnswers]


def golden_samples(plan: Plan) -> int:
    """Support samples to adapt to: SUPPORT_SAMPLES, or as many as MAX_MACS allows; with 0, a query is all there is."""
    macs = sum(program_macs(plan, plan.program(step)) for step in range(1, plan.model.adaptation.steps + 1))
    return min(SUPPORT_SAMPLES, MAX_MACS // max(macs, 1))


def golden_task(model: Model, samples: int = SUPPORT_SAMPLES) -> GoldenTask:
    """The same samples for every model of the same input shape."""
    rng = np.random.default_rng(0)
    encoding = model.adaptation.encoding
    shape = (samples + 1, *model.graph.input_shape)
    if encoding.kind == "uint8":
        encoded = [sample.tobytes() for sample in rng.integers(0, 256, shape, dtype=np.uint8)]
    else:
        encoded = [sample.astype("<f4").tobytes() for sample in rng.normal(size=shape)]
    return GoldenTask(tuple(encoded[:-1]), tuple(_targets(model, rng, samples)), encoded[-1])


def _targets(model: Model, rng: np.random.Generator, samples: int) -> Iterator[Target]:
    for index in range(samples):
        if model.adaptation.regression:
            yield rng.normal(size=model.adaptation.ways).astype(np.float32)
        else:
            yield index % model.adaptation.ways


def find_reference() -> Reference:
    """The registered reference; raises BuildError where none is installed."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        reference: Reference = entry.load()
        return reference
    raise BuildError(
        "no reference implementation is installed",
        f"entry points '{ENTRY_POINT_GROUP}'",
        "install pmeta-toolchain again",
    )


def golden_values(
    model: Model,
    tensors: tuple[str, ...],
    reference: Reference,
    samples: int = SUPPORT_SAMPLES,
    numerics: Collection[Numerics] = (STRICT,),
) -> dict[str, Any]:
    """Values for golden.h.j2: input, and the reference's answers in all variants of the numerics that boards have."""
    task = golden_task(model, samples)
    wanted = [variant for variant in VARIANTS if variant in numerics]
    answers = [_answers(model, task, reference(model, task, tensors, variant), len(tensors)) for variant in wanted]
    if all(arrays == answers[0] for arrays in answers):
        answers = answers[:1]  # hardly any network comes near the numbers in which variants differ
    inputs = [_bytes_array(f"golden_query[{len(task.query)}]", (task.query,), nested=False)]
    if task.support:
        inputs.append(_bytes_array(f"golden_support[GOLDEN_SAMPLES][{len(task.query)}]", task.support))
    return {
        "samples": len(task.support),
        "targets": targets_array("golden_targets", "GOLDEN_SAMPLES", task.targets),
        "inputs": inputs,
        "answers": [
            {"numerics": VARIANTS.index(variant), "name": variant, "arrays": arrays}
            for variant, arrays in zip(wanted, answers, strict=False)
        ],
    }


def _answers(model: Model, task: GoldenTask, answers: GoldenAnswers, tensors: int) -> list[dict[str, Any]]:
    ways, steps = model.adaptation.ways, model.adaptation.steps
    query = _words_array(f"golden_query_logits[{ways}]", _words(answers.query_logits))
    if not task.support:
        return [query]
    logits = [[_words(raw) for raw in row] for row in answers.logits]
    losses = [[_words(raw)[0] for raw in row] for row in answers.losses]
    crcs = [list(row) for row in answers.tensor_crcs]
    return [
        query,
        _words_array(f"golden_logits[{steps}][GOLDEN_SAMPLES][{ways}]", logits),
        _words_array(f"golden_losses[{steps}][GOLDEN_SAMPLES]", losses),
        _words_array(f"golden_tensor_crcs[{steps}][{tensors}]", crcs),
    ]


def _words(raw: bytes) -> list[int]:
    return [int(word) for word in np.frombuffer(raw, "<u4")]


def _literal(value: Any) -> str:
    """Nested lists of words as a C initializer."""
    if isinstance(value, list):
        return "{" + ", ".join(_literal(item) for item in value) + "}"
    return f"0x{value:08x}u"


def _words_array(declaration: str, value: list[Any]) -> dict[str, Any]:
    return {"declaration": f"uint32_t {declaration}", "rows": [_literal(item) for item in value]}


def _bytes_array(declaration: str, rows: tuple[bytes, ...], nested: bool = True) -> dict[str, Any]:
    texts = [", ".join(map(str, raw)) for raw in rows]
    return {"declaration": f"uint8_t {declaration}", "rows": [f"{{{text}}}" for text in texts] if nested else texts}
