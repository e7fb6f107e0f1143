"""What lies where in the arena during one program, call by call: the plan's blocks, ready to be drawn or tabulated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby

from pmeta.codegen.plan.plan import Plan, Timeline
from pmeta.codegen.plan.program import Buffer, Call, Program, Role


@dataclass(frozen=True)
class Occupant:
    """A buffer in the arena. Calls are numbered from 0; `first` and `last` are inclusive."""

    name: str
    role: Role
    buffer: Buffer
    offset: int
    first: int
    last: int
    outlives_sample: bool  # learned weights, accumulators, a micro-batch

    @property
    def bytes(self) -> int:
        return self.buffer.bytes


@dataclass(frozen=True)
class Scene:
    """The arena while one program runs, in the steps where it looks the same; no steps: prediction after the last."""

    program: Program
    steps: tuple[int, ...]
    occupants: tuple[Occupant, ...]  # largest first

    @property
    def calls(self) -> tuple[Call, ...]:
        return self.program.calls

    @cached_property
    def live_bytes(self) -> tuple[int, ...]:
        """Bytes that hold data during each call."""
        changes = [0] * (len(self.calls) + 1)
        for occupant in self.occupants:
            changes[occupant.first] += occupant.bytes
            changes[occupant.last + 1] -= occupant.bytes
        return tuple(accumulate(changes[:-1]))

    @property
    def peak_bytes(self) -> int:
        return max(self.live_bytes)

    @property
    def peak_call(self) -> int:
        """The first call during which `peak_bytes` are live."""
        return self.live_bytes.index(self.peak_bytes)


def scenes(plan: Plan) -> tuple[Scene, ...]:
    """One scene per program, or more where it runs among different weights and accumulators; prediction comes last."""
    steps = range(1, len(plan.program_of_step) + 1)
    found: dict[tuple[str, tuple[_Lasting, ...]], list[int]] = {}
    for step in steps:
        found.setdefault((plan.program(step).name, _lasting(plan, step)), []).append(step)
    programs = {program.name: program for program in plan.adapt}
    adapting = [_scene(plan, programs[name], tuple(at), lasting) for (name, lasting), at in found.items()]
    return (*adapting, _scene(plan, plan.predict, (), _lasting(plan, len(steps) + 1)))


def scene_of_step(all_scenes: tuple[Scene, ...], step: int) -> Scene:
    """The scene of step k = 1..K."""
    return next(scene for scene in all_scenes if step in scene.steps)


def runs(scene: Scene) -> tuple[tuple[str, str, int, int], ...]:
    """(node, phase, first call, number of calls) of neighbouring calls that belong together."""
    found, start = [], 0
    for (layer, phase), group in groupby(scene.calls, key=lambda call: (call.layer, call.phase)):
        count = len(list(group))
        found.append((layer, phase, start, count))
        start += count
    return tuple(found)


@dataclass(frozen=True)
class _Lasting:
    """A buffer that outlives a sample, under the role it plays in a certain step."""

    name: str
    role: Role
    buffer: Buffer


def _scene(plan: Plan, program: Program, steps: tuple[int, ...], lasting: tuple[_Lasting, ...]) -> Scene:
    end = len(program.calls) - 1
    occupants = []
    for buffer in program.buffers:
        first, last = program.lifetimes[buffer]
        offset = plan.offset(program.name, buffer.name)
        role = _role(program, buffer, first, last)
        occupants.append(Occupant(buffer.name, role, buffer, offset, first, last, False))
    for item in lasting:
        occupants.append(Occupant(item.name, item.role, item.buffer, plan.offset("", item.buffer.name), 0, end, True))
    return Scene(program, steps, tuple(sorted(occupants, key=lambda o: (-o.bytes, o.offset, o.first, o.name))))


def _role(program: Program, buffer: Buffer, first: int, last: int) -> Role:
    """A map that holds data from the forward until the backward pass is kept, whether or not it was made for that."""
    kept = program.calls[first].phase == "forward" and program.calls[last].phase == "backward"
    return Role.STORE if kept and buffer.role is Role.MAP else buffer.role


def _lasting(plan: Plan, phase: int) -> tuple[_Lasting, ...]:
    """What outlives a sample and is in the arena in step k, or after the last one (K + 1)."""
    lengths = tuple(len(plan.adapt[index].calls) for index in plan.program_of_step)
    timeline = Timeline.of(lengths, len(plan.predict.calls))
    moment = timeline.adapt_start[phase - 1] if phase <= len(lengths) else timeline.predict_start[-1]
    live = {
        block.key[1]
        for block in plan.blocks
        if not block.key[0] and any(first <= moment <= last for first, last in block.intervals)
    }
    found = []
    for weight in plan.learned:
        if phase == weight.steps[0]:  # its accumulator, which the new weight will be written over
            found.append(_Lasting(f"{weight.name} gradient", Role.ACCUMULATOR, weight.weight))
        elif weight.weight.name in live:
            found.append(_Lasting(weight.name, Role.WEIGHT, weight.weight))
        if weight.gradient is not None and weight.gradient.name in live:
            found.append(_Lasting(f"{weight.name} gradient", Role.ACCUMULATOR, weight.gradient))
    sums = (buffer for program in plan.adapt for buffer in program.external if buffer.role is Role.BATCH)
    of_batch = dict.fromkeys((*plan.batch, *sums))
    found += [_Lasting(buffer.name, buffer.role, buffer) for buffer in of_batch if buffer.name in live]
    return tuple(found)
