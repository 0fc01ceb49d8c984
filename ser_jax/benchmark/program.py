"""What a compiled program says of itself: collectives, FLOPs, estimated time.

Read from its text (HLO). A loop's body counts as often as the loop turns; a fusion's
inner operations count for FLOPs and collectives, its estimate is its own.
"""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BYTES = {
    **dict.fromkeys(("pred", "s4", "u4", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s16", "u16", "bf16", "f16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64"), 8),
}
_COLLECTIVES = (
    *("all-reduce", "all-gather", "all-to-all", "ragged-all-to-all"),
    *("reduce-scatter", "collective-permute", "collective-broadcast"),
)
# Parts of the step by the scopes that they stand in; the first that fits counts.
_PARTS = (
    ("transpose(jvp(student_encoder))", "student, backward"),
    ("student_encoder", "student, forward"),
    ("target_encoder", "target"),
    ("transpose(jvp(objective))", "objective, backward"),
    ("objective", "objective, forward"),
    ("transpose(jvp(regularizer))", "regularizer, backward"),
    ("regularizer", "regularizer, forward"),
    ("views", "views"),
    ("optimizer", "optimizer"),
)
OTHER = "other"

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One line of a program.

    Attributes:
        name: Of its result.
        shape: Of its result, as written.
        opcode: What it does.
        rest: Operands and attributes, as written.
    """

    name: str
    shape: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names of what it reads."""
        depth, end = 1, 0
        while depth and end < len(self.rest):
            depth += (self.rest[end] in "({") - (self.rest[end] in ")}")
            end += 1
        return re.findall(r"%([\w.-]+)", self.rest[:end])

    @property
    def op_name(self) -> str:
        """Scopes and primitive it was traced from."""
        return self.named('op_name="([^"]*)"')

    @property
    def part(self) -> str:
        """The part of the training step it belongs to."""
        return next((part for key, part in _PARTS if key in self.op_name), OTHER)

    def named(self, pattern: str) -> str:
        """What a pattern's group finds in the attributes; "" if it finds nothing."""
        found = re.search(pattern, self.rest)
        return found[1] if found else ""


class Collective(NamedTuple):
    """A collective operation.

    Attributes:
        kind: "all-reduce" and the like.
        times: How often it runs in a step.
        wire_bytes: What a device sends in all, if the devices form a ring.
        shape: Of its result.
        op_name: Scopes and primitive it was traced from.
        part: Of the training step.
    """

    kind: str
    times: int
    wire_bytes: float
    shape: str
    op_name: str
    part: str


class Program:
    """A compiled program, read."""

    def __init__(self, text: str):
        """Reads the text of a module.

        Args:
            text: What `jax.stages.Compiled.as_text` gives.

        Raises:
            ValueError: If it has no entry computation.
        """
        self._computations: dict[str, list[Instruction]] = {}
        self._entry = ""
        current: list[Instruction] = []
        for line in text.splitlines():
            if head := _COMPUTATION.match(line):
                current = self._computations.setdefault(head[2], [])
                self._entry = head[2] if head[1] else self._entry
            elif found := _INSTRUCTION.match(line):
                current.append(Instruction(*found.groups()))
        if not self._entry:
            raise ValueError("this is no compiled program: it has no ENTRY.")

    def collectives(self, num_devices: int) -> list[Collective]:
        """Every collective, the one that sends most first.

        Args:
            num_devices: Of the program.

        Returns:
            Their kinds, counts and bytes.
        """
        rows: list[Collective] = []
        seen: set[str] = set()
        for count, fused, step in self._walk():
            kind = step.opcode.removesuffix("-start")
            if kind not in _COLLECTIVES:
                continue
            # One that runs beside fusions is written into each of them.
            channel = step.named(r"channel_id=(\d+)")
            if fused and channel in seen:
                continue
            if fused and channel:
                seen.add(channel)
            shape = _result(step)
            sent = count * _wire(
                kind, _num_bytes(shape), _group_size(step, num_devices)
            )
            rows.append(Collective(kind, count, sent, shape, step.op_name, step.part))
        return sorted(rows, key=lambda row: -row.wire_bytes)

    def cycles_by_part(self) -> collections.Counter[str]:
        """The compiler's estimate by part of the step; collectives are not in it.

        Returns:
            Part -> cycles; empty if the program has no estimates.
        """
        cycles: collections.Counter[str] = collections.Counter()
        for count, fused, step in self._walk():
            estimate = step.named(r'"estimated_cycles":"(\d+)"')
            if estimate and not fused:
                cycles[step.part] += count * int(estimate)
        return cycles

    def kernels(self) -> Iterator[tuple[int, Instruction, int]]:
        """Kernels of ours, which the compiler has no estimate for.

        Yields:
            How often it runs, the call, bytes that it reads and writes.
        """
        shapes = self._shapes()
        for count, _, step in self._walk():
            if step.opcode == "custom-call" and "tpu_custom_call" in step.rest:
                moved = sum(_num_bytes(shapes.get(x, "")) for x in step.operands)
                yield count, step, moved + _num_bytes(step.shape)

    def flops(self) -> int:
        """FLOPs of matrix products and convolutions on one device, padding counted."""
        shapes = self._shapes()
        return sum(
            count * _flops(step, shapes)
            for count, _, step in self._walk()
            if step.opcode in ("dot", "convolution")
        )

    def _shapes(self) -> dict[str, str]:
        return {
            step.name: step.shape
            for steps in self._computations.values()
            for step in steps
        }

    def _walk(self) -> Iterator[tuple[int, bool, Instruction]]:
        """Every instruction that runs: how often, whether in a fusion, which."""
        stack = [(self._entry, 1, False)]
        while stack:
            name, count, fused = stack.pop()
            for step in self._computations[name]:
                yield count, fused, step
                if step.opcode == "while":
                    body = step.named(r"body=%?([\w.-]+)")
                    stack.append((body, count * self._turns(step), fused))
                elif step.opcode == "conditional":
                    for branch in _branches(step):
                        stack.append((branch, count, fused))
                elif step.opcode in ("fusion", "call", "async-start", "custom-call"):
                    called = step.named(
                        r"(?:calls|to_apply|called_computations=\{)=?%?([\w.-]+)"
                    )
                    if called in self._computations:
                        stack.append((called, count, fused or step.opcode == "fusion"))

    def _turns(self, loop: Instruction) -> int:
        """How often a loop turns: as the compiler knows, else its largest constant."""
        known = loop.named(r'known_trip_count"?:\{"?n"?:"?(\d+)')
        if known:
            return int(known)
        condition = self._computations[loop.named(r"condition=%?([\w.-]+)")]
        bounds = [
            int(step.rest.partition(")")[0])
            for step in condition
            if step.opcode == "constant" and re.match(r"[su]\d+\[\]", step.shape)
        ]
        return max(bounds, default=1)


def _branches(step: Instruction) -> list[str]:
    named = re.findall(r"(?:true|false)_computation=%?([\w.-]+)", step.rest)
    listed = step.named(r"branch_computations=\{([^}]*)\}")
    return named + re.findall(r"[\w.-]+", listed)


def _arrays(shape: str) -> list[tuple[str, list[int]]]:
    """Types and sides of the arrays of a shape."""
    return [
        (kind, [int(side) for side in sides.split(",") if side])
        for kind, sides in _ARRAY.findall(shape)
        if kind in _BYTES
    ]


def _num_bytes(shape: str) -> int:
    return sum(_BYTES[kind] * math.prod(sides) for kind, sides in _arrays(shape))


def _result(step: Instruction) -> str:
    """The result's shape; one that is started also holds operands and a context."""
    if not step.opcode.endswith("-start") or not step.shape.startswith("("):
        return step.shape
    arrays = [x for x in re.findall(r"\w+\[[\d,]*\]", step.shape) if x != "u32[]"]
    return " ".join(arrays if "reduce" in step.opcode else arrays[len(arrays) // 2 :])


def _group_size(step: Instruction, num_devices: int) -> int:
    """How many devices take part in one group of a collective."""
    by_sides = step.named(r"replica_groups=\[\d+,(\d+)\]")
    if by_sides:
        return int(by_sides)
    listed = step.named(r"replica_groups=\{\{([\d,]+)\}")
    return len(listed.split(",")) if listed else num_devices


def _wire(kind: str, num_bytes: int, group: int) -> float:
    """Bytes that a device sends for a result of so many."""
    share = (group - 1) / group
    factor = {
        "all-reduce": 2 * share,
        "all-gather": share,
        "all-to-all": share,
        "reduce-scatter": group - 1,
    }.get(kind, 1)
    return factor * num_bytes


def _flops(step: Instruction, shapes: dict[str, str]) -> int:
    """2 for each multiply-add of a matrix product or convolution."""
    (_, out), *_ = _arrays(step.shape)
    (_, lhs), *_ = _arrays(shapes[step.operands[0]])
    (_, rhs), *_ = _arrays(shapes[step.operands[1]])
    if step.opcode == "dot":
        contracted = step.named(r"lhs_contracting_dims=\{([\d,]*)\}")
        sides = [lhs[int(axis)] for axis in contracted.split(",") if axis]
        return 2 * math.prod(out) * math.prod(sides)
    labels = step.named(r"dim_labels=(\S+?)(?:,|\s|$)")
    left, right = re.split(r"_|->", labels)[:2]
    result = labels.partition("->")[2]
    spatial = [letter for letter in result if letter.isdigit()]
    pairs = 2 * rhs[right.index("i")]
    for letter in "bf":
        pairs *= out[result.index(letter)]
    window = step.named(r"window=\{([^}]*)\}")
    for number, letter in enumerate(spatial):
        pairs *= _positions(
            lhs[left.index(letter)], out[result.index(letter)], window, number
        )
    return pairs


def _positions(size: int, out: int, window: str, number: int) -> int:
    """Pairs of a result's place and a kernel's place that meet data along one side."""

    def setting(name: str, default: str) -> str:
        found = re.search(rf"\b{name}=(\S+)", window)
        return found[1].split("x")[number] if found else default

    kernel = int(setting("size", "1"))
    stride, dilate = int(setting("stride", "1")), int(setting("rhs_dilate", "1"))
    spread = int(setting("lhs_dilate", "1"))
    low = int(setting("pad", "0_0").partition("_")[0])
    reach = (size - 1) * spread + 1
    count = 0
    for tap in range(kernel):
        first = tap * dilate - low  # place read for the result's place 0
        # Places first + stride * i in [0, reach) that are multiples of `spread`.
        lowest = max(0, math.ceil(-first / stride))
        highest = min(out - 1, (reach - 1 - first) // stride)
        if spread == 1:
            count += max(0, highest - lowest + 1)
        else:
            count += sum(
                (first + stride * i) % spread == 0 for i in range(lowest, highest + 1)
            )
    return count
