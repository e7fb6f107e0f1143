"""pmeta_layers.c: one function for each shape and pass of a kernel that is compiled for constants."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pmeta.codegen.adaptation import Adaptation, InputEncoding, Model
from pmeta.codegen.graph import Graph, frozen_float32
from pmeta.codegen.networks import mlp
from pmeta.codegen.operators.flatten import Flatten
from pmeta.codegen.operators.gemm import Gemm
from pmeta.codegen.operators.max_pool import MaxPool
from pmeta.codegen.operators.window import Window
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.project.c_source import Title, library_code
from pmeta.codegen.project.layer_functions import PREFIX, inline_kernels, layer_function
from tests.models import random_4conv

pytestmark = pytest.mark.unit

TITLE = Title("test", "pmeta-gen", "0" * 64, "5a" * 16)


def functions(plan: Plan) -> list[str]:
    calls = [call for program in (*plan.adapt, plan.predict) for call in program.calls]
    return sorted({found.name for call in calls if (found := layer_function(call)) is not None})


def all_learn(graph: Graph) -> Model:
    layers = len(graph.layers)
    alpha = frozen_float32(np.full((layers, 1), 0.01))
    encoding = InputEncoding("float32")
    updates = (("weight", "bias"),) * layers
    return Model(graph, Adaptation("test", graph.output_shape[0], 1, alpha, updates, 0, 0, encoding))


@pytest.fixture(scope="module")
def model() -> Model:
    return random_4conv(1, width=8, steps=2, attention=True, size=(1, 16, 16))


def test_kernels_are_found_in_their_headers() -> None:
    kernels = inline_kernels()
    assert kernels["pmeta_conv_forward"] == ("const float *x", "const float *w", "const float *bias", "float *y")
    assert "pmeta_gemm_forward" not in kernels  # it knows its shape when it runs


def test_each_function_is_defined_once_and_called(model: Model) -> None:
    plan = make_plan(model)
    code = library_code(plan, TITLE)
    defined = re.findall(rf"^void ({PREFIX}\w+)\([^;{{]*\)\n{{", code["pmeta_layers.c"], flags=re.MULTILINE)
    declared = re.findall(rf"^void ({PREFIX}\w+)\(", code["pmeta_layers.h"], flags=re.MULTILINE)
    called = re.findall(rf"({PREFIX}\w+)\(", code["pmeta_plan.c"])
    assert len(defined) == len(set(defined))
    assert sorted(defined) == sorted(declared) == sorted(set(called)) == functions(plan)
    assert not set(re.findall(r"pmeta_\w+", code["pmeta_plan.c"])) & inline_kernels().keys()


def test_shapes_and_row_types_are_constants(model: Model) -> None:
    text = library_code(make_plan(model), TITLE)["pmeta_layers.c"]
    calls = re.findall(r"pmeta_conv_weight_gradient\(([^;]*)\);", text)
    assert calls
    for call in calls:
        shape, _, row_type, *_ = [argument.strip() for argument in call.split(",")]
        assert re.fullmatch(r"&\w+_shape", shape)
        assert row_type == "PMETA_FLOAT32"


def test_a_network_without_such_kernels_has_no_such_files() -> None:
    code = library_code(make_plan(all_learn(mlp())), TITLE)
    assert not {"pmeta_layers.c", "pmeta_layers.h", "pmeta_conv.h"} & code.keys()
    assert "pmeta_layers.h" not in code["pmeta_plan.c"]


def test_all_that_is_included_is_in_the_library() -> None:
    """A network without a convolution has no rows of several types, and none of their kernels."""
    fc = {"fc.weight": frozen_float32(np.ones((2, 12))), "fc.bias": frozen_float32(np.ones(2))}
    nodes = (
        MaxPool("pool", "x", "pool.y", Window((2, 2), (2, 2))),
        Flatten("flatten", "pool.y", "flatten.y"),
        Gemm("fc", "flatten.y", "fc.y", "fc.weight", "fc.bias", 2),
    )
    for graph in (Graph("pool", "x", (3, 4, 4), nodes, fc), mlp(2, (8, 4), outputs=2)):
        code = library_code(make_plan(all_learn(graph)), TITLE)
        included = {name for text in code.values() for name in re.findall(r'^#include "(.*)"$', text, re.MULTILINE)}
        assert included - code.keys() == {"pmeta_weights.h"}, graph.name  # of the constants
