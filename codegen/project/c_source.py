"""The C of lib/pmeta_model: plan -> values for the templates -> text. All decisions were made in the plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

from pmeta.codegen.modelfile import ATTENTION_PARTS
from pmeta.codegen.numerics import HELIUM, STRICT
from pmeta.codegen.plan.lowering import SLICE
from pmeta.codegen.plan.plan import STATE_BYTES, Plan, PlannedWeight
from pmeta.codegen.plan.program import Argument, Buffer, Call, Constant, Part, Program, Role, Stage, whole
from pmeta.codegen.project.c_text import comment_text, shape_struct, wrapped
from pmeta.codegen.project.channel_rates import FUNCTION as SCALE_CHANNELS
from pmeta.codegen.project.channel_rates import ChannelRates, channel_rates
from pmeta.codegen.project.constants import attention_modules, constant_files, hex_float, shape_text
from pmeta.codegen.project.kernel_files import headers_of, kernel_files
from pmeta.codegen.project.layer_functions import HEADER as LAYERS
from pmeta.codegen.project.layer_functions import inline_kernels, layer_files, layer_function
from pmeta.codegen.project.support_files import support_files
from pmeta.codegen.project.templates import render, template_text
from pmeta.codegen.support import STREAMED, Support


@dataclass(frozen=True)
class Title:
    """What the headers of all generated files say."""

    title: str
    command: str
    model_sha256: str
    firmware_id: str


def library_sources(plan: Plan, title: Title, support: Support = STREAMED) -> dict[str, str | bytes]:
    """File name -> content of lib/pmeta_model/src."""
    return {**library_code(plan, title, support), **constant_files(plan, title.title, title.model_sha256)}


def library_code(plan: Plan, title: Title, support: Support = STREAMED) -> dict[str, str]:
    """The part of `library_sources` that is no constants."""
    common: dict[str, Any] = {"title": title.title, "command": title.command, "model_sha256": title.model_sha256}
    calls = (call for program in (*plan.adapt, plan.predict) for call in program.calls)
    called = {call.function.rsplit(" ", 1)[-1] for call in calls}
    if any(channel_rates(plan)):
        called.add(SCALE_CHANNELS)
    headers = headers_of(called)
    layers = layer_files(plan, common)
    return {
        **kernel_files(headers),
        **layers,
        "pmeta_model.h": render("model/pmeta_model.h.j2", **common, **_header_values(plan, support)),
        "pmeta_model.c": template_text("model/pmeta_model.c"),
        "pmeta_plan.h": render("model/pmeta_plan.h.j2", **common, **_plan_header_values(plan)),
        "pmeta_plan.c": render("model/pmeta_plan.c.j2", **common, **_plan_values(plan, title, called)),
        **support_files(support, title.title),
    }


def sample_bytes(plan: Plan) -> int:
    """Bytes of one sample as it travels."""
    return prod(plan.graph.input_shape) * plan.model.adaptation.encoding.bytes_per_element


def state_bytes(plan: Plan) -> int:
    """Bytes of a saved state: id, step, two checksums, all tensors (pmeta_model.c)."""
    return 16 + 4 + 4 + sum(weight.weight.bytes for weight in plan.learned) + 4


def ram_model(plan: Plan, support: Support = STREAMED) -> int:
    """Static RAM of lib/pmeta_model."""
    return plan.arena_bytes + STATE_BYTES + support.ram_bytes(plan.model)


def arena_part_name(index: int) -> str:
    """C name of the arena's part: pmeta_arena, pmeta_arena_2, ..."""
    return f"pmeta_arena_{index + 1}" if index else "pmeta_arena"


def _header_values(plan: Plan, support: Support) -> dict[str, Any]:
    adaptation = plan.model.adaptation
    return {
        "numerics": f"{STRICT}; {HELIUM} where the core has Helium",
        "ram_model": ram_model(plan, support),
        "support": support.place,
        "support_samples": support.samples,
        "support_bytes": support.ram_bytes(plan.model),
        "sample_bytes": sample_bytes(plan),
        "sample_layout": f"{adaptation.encoding.kind} {shape_text(plan.graph.input_shape)}, row-major",
        "ways": adaptation.ways,
        "regression": adaptation.regression,
        "outputs": "outputs" if adaptation.regression else "logits",
        "steps": adaptation.steps,
        "tensors": plan.learned,
        "state_bytes": state_bytes(plan),
    }


def _plan_header_values(plan: Plan) -> dict[str, Any]:
    return {
        "arena_bytes": plan.arena_parts[0],
        "more_parts": _more_parts(plan),
        "tensors": [_tensor(plan, weight) for weight in plan.learned],
    }


def _more_parts(plan: Plan) -> list[dict[str, Any]]:
    """The arrays that the arena goes on in, after pmeta_arena."""
    parts = zip(plan.placement.boundaries, plan.arena_parts[1:], strict=True)
    return [
        {"name": arena_part_name(number), "offset": offset, "bytes": size}
        for number, (offset, size) in enumerate(parts, start=1)
    ]


def _plan_values(plan: Plan, title: Title, called: Iterable[str]) -> dict[str, Any]:
    programs = [_stage(plan, program, stage) for program in (*plan.adapt, plan.predict) for stage in program.stages]
    identity = bytes.fromhex(title.firmware_id)
    return {
        "arena_bytes": plan.arena_bytes,
        "more_parts": _more_parts(plan),
        "lower_bound": plan.placement.lower_bound,
        "arena_table": list(_arena_table(plan)),
        "firmware_id_bytes": [f"0x{byte:02x}" for byte in identity],
        "kernel_headers": sorted(_plan_headers(called)),
        "constants": [*_shape_constants(plan), *_attention_constants(plan), *_input_constants(plan)],
        "tensors": [_tensor(plan, weight) for weight in plan.learned],
        "programs": programs,
        "batch": _batch(plan),
        "channel_rates": [_channel_rates(rates) for rates in channel_rates(plan)],
        **_cases(plan),
    }


def _plan_headers(called: Iterable[str]) -> Iterator[str]:
    """What declares the functions that pmeta_plan.c calls."""
    inline = [function for function in called if function in inline_kernels()]
    yield from headers_of(set(called).difference(inline))
    if inline:
        yield LAYERS


def _tensor(plan: Plan, weight: PlannedWeight) -> dict[str, Any]:
    own_gradient = weight.gradient or weight.weight
    return {
        "identifier": plan.names[weight.name],
        "count": prod(weight.weight.shape),
        "shape": shape_text(weight.weight.shape),
        "first_step": weight.steps[0],
        "weight_offset": plan.offset("", weight.weight.name),
        "gradient_offset": plan.offset("", own_gradient.name),
        "step_sizes": [hex_float(size) if size else "0" for size in weight.step_sizes],
    }


def _arena_table(plan: Plan) -> Iterator[str]:
    """One row per block: where, how large, what, when."""
    yield f"{'offset':>8} {'bytes':>8}  {'program':10} buffer"
    rows = sorted((*block.key, plan.placement.offsets[block.key], block.bytes) for block in plan.blocks)
    for program, name, offset, size in sorted(rows, key=lambda row: (row[0], row[2])):
        yield f"{offset:8d} {size:8d}  {program or 'all':10} {name}"


def _shape_constants(plan: Plan) -> Iterator[dict[str, Any]]:
    """The shape structs that some program passes, in the order of their first use."""
    calls = [call for program in (*plan.adapt, plan.predict) for call in program.calls]
    passed = (a for call in calls if layer_function(call) is None for a in call.arguments)
    return map(shape_struct, dict.fromkeys(a for a in passed if isinstance(a, Constant)))


def _attention_constants(plan: Plan) -> Iterator[dict[str, Any]]:
    adaptation = plan.model.adaptation
    for name, _, direction, module in attention_modules(plan):
        rho = adaptation.rho_bw if direction == "bw" else adaptation.rho_fw
        fields = [f".channels = {module.channels}", f".rho = {rho}"]
        fields += [f".{part} = pmeta_const_{name}_{part}" for part in ATTENTION_PARTS]
        yield {"declaration": f"pmeta_attention_module {name}", "fields": fields}


def _input_constants(plan: Plan) -> Iterator[dict[str, Any]]:
    encoding = plan.model.adaptation.encoding
    tables = (("input_scale", encoding.scale), ("input_offset", encoding.offset)) if encoding.kind == "uint8" else ()
    for name, values in tables:
        yield {"declaration": f"float {name}[{len(values)}]", "fields": [hex_float(value) for value in values]}


_SAMPLE = "const uint8_t *sample"
_TARGET = f"{_SAMPLE}, pmeta_target target"
_PARAMETERS = {
    Stage.SAMPLE: f"{_TARGET}, float *logits, float *loss",
    Stage.FORWARD: f"{_TARGET}, int32_t first, float *logits, float *loss",
    Stage.FORWARD_SCORES: "int32_t count",
    Stage.BACKWARD: f"{_TARGET}, int32_t first",
    Stage.BACKWARD_SCORES: "int32_t count",
    Stage.GRADIENT: _TARGET,
}
_TITLES = {
    Stage.SAMPLE: "One support sample",
    Stage.FORWARD: "One support sample, forward: logits, loss, what forward attention sees",
    Stage.FORWARD_SCORES: "Forward attention of a micro-batch",
    Stage.BACKWARD: "One support sample, backward: what backward attention sees",
    Stage.BACKWARD_SCORES: "Backward attention of a micro-batch",
    Stage.GRADIENT: "One support sample, weight gradients",
}


def _stage(plan: Plan, program: Program, stage: Stage) -> dict[str, Any]:
    """The C function of one stage of a program, or of all of it."""
    steps = plan.steps_of(program)
    calls = [program.calls[n] for n in program.stages[stage]]
    used = {whole(a) for call in calls for a in (*call.arguments, *call.written) if isinstance(a, Buffer)}
    unused = stage is Stage.FORWARD and all("first" not in call.arguments for call in calls)
    return {
        "name": _function(program, stage),
        "title": f"{_TITLES[stage]}, {_steps(steps)}." if steps else "One query sample.",
        "parameters": _PARAMETERS[stage] if steps else f"{_SAMPLE}, float *logits",
        "locals": [_local(plan, program, b) for b in (*program.buffers, *program.external) if b in used],
        "groups": [*([{"title": "no forward attention", "lines": ["(void)first;"]}] * unused), *_groups(calls)],
    }


def _function(program: Program, stage: Stage) -> str:
    return f"{program.name}_{stage.value}" if stage.value else program.name


def _batch(plan: Plan) -> str:
    """The C that collects micro-batches; nothing where no step needs one."""
    if not plan.batch:
        return ""
    samples, targets = plan.batch
    ways = plan.model.adaptation.ways
    memory = f"(({targets.ctype} *)at({plan.offset('', targets.name)}u))"
    if plan.model.adaptation.regression:
        get, put = f"return {memory} + n * {ways}u;", f"memcpy({memory} + n * {ways}u, target, {4 * ways}u);"
    else:
        get, put = f"return {memory}[n];", f"{memory}[n] = target;"
    target_lines = ["", "static pmeta_target batch_target(uint32_t n)", "{", f"    {get}", "}"]
    target_lines += ["", "static void keep_target(uint32_t n, pmeta_target target)", "{", f"    {put}", "}"]
    batched = [program for program in plan.adapt if Stage.GRADIENT in program.stages]
    return render(
        "model/pmeta_batch.c.j2",
        count=samples.shape[0],
        samples_offset=plan.offset("", samples.name),
        target_lines=target_lines,
        programs=[
            {"name": p.name, **{s.value: s in p.stages for s in (Stage.FORWARD_SCORES, Stage.BACKWARD_SCORES)}}
            for p in batched
        ],
    )


def _cases(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """What to call for a sample, by step, and for the incomplete micro-batch at its end."""
    cases, incomplete = [], []
    for program in plan.adapt:
        steps, batched = plan.steps_of(program), Stage.GRADIENT in program.stages
        index = "index, " if batched else ""
        cases.append({"steps": steps, "call": f"{program.name}({index}sample, target, logits, loss);"})
        if batched:
            count = plan.model.adaptation.sample_batch
            incomplete.append({"steps": steps, "call": f"{program.name}_batch(samples % {count}u);"})
    return {"cases": cases, "incomplete": incomplete}


def _channel_rates(rates: ChannelRates) -> dict[str, str]:
    lines = wrapped(f"{SCALE_CHANNELS}(", rates.arguments)
    return {"tensor": rates.tensor, "layer": comment_text(rates.layer), "call": "\n        ".join(lines)}


def _steps(steps: Sequence[int]) -> str:
    """step 2; steps 2 and 3; steps 1, 2 and 4."""
    if len(steps) == 1:
        return f"step {steps[0]}"
    return f"steps {', '.join(map(str, steps[:-1]))} and {steps[-1]}"


def _local(plan: Plan, program: Program, buffer: Buffer) -> dict[str, str]:
    if buffer.role is Role.ACCUMULATOR:
        value = f"pmeta_gradient(tensor_{buffer.name.removesuffix('_grad')})"
    else:
        key = "" if buffer in program.external else program.name
        value = f"at({plan.offset(key, buffer.name)}u)"
    comment = f"{shape_text(buffer.shape)} {buffer.role.value}"
    return {"declaration": f"{buffer.ctype} *const {buffer.name} = {value};", "comment": comment}


def _groups(program_calls: Sequence[Call]) -> Iterator[dict[str, Any]]:
    """The calls, grouped by layer and phase; a loop is one group."""
    for loop, looped in groupby(program_calls, key=lambda call: call.loop):
        if loop is None:
            for (phase, layer), group in groupby(looped, key=lambda call: (call.phase, call.layer)):
                title = "loss" if phase == "loss" else f"{comment_text(layer)}, {phase}"
                yield {"title": title, "lines": [line for call in group for line in _statement(call)]}
        else:
            calls = list(looped)
            layers = ", ".join(comment_text(layer) for layer, _ in groupby(call.layer for call in calls))
            lines = [f"    {line}" for call in calls for line in _statement(call)]
            start = f"for (int32_t {SLICE} = 0; {SLICE} < {loop.slices}; {SLICE}++) {{"
            title = f"{layers}, {calls[0].phase}, slice by slice of the channels"
            yield {"title": title, "lines": [start, *lines, "}"]}


def _statement(call: Call) -> list[str]:
    function = layer_function(call)
    name, arguments = (function.name, function.arguments(call)) if function else (call.function, call.arguments)
    return wrapped(f"{name}(", [_argument(argument) for argument in arguments])


def _argument(argument: Argument) -> str:
    match argument:
        case Part():
            return f"{argument.name} + {SLICE} * {argument.stride}"
        case Buffer():
            return argument.name
        case Constant():
            return f"&{argument.name}"
    return argument
