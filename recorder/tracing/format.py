"""How a trace is recorded: its keys, and what its events are. torch is not needed here.

`VALUES` is an int64 array for each step that was traced: a fingerprint for each event, in the order
of time; of `grad_norm` and of numbers among `settings` the bits of a float64. `ORDER` is a text,
JSON: the events. It is recorded before the first array that it tells of, and again when it changes.
`ATTRIBUTES` is a text, too: a JSON object of what layers, optimizers and the environment are, name
by name.
"""

from typing import NamedTuple

VALUES, ORDER, ATTRIBUTES = "trace/values", "trace/order", "trace/attributes"
KEYS = frozenset((VALUES, ORDER, ATTRIBUTES))

ENVIRONMENT = "environment"
"""What the attributes call what numbers depend on beside the code, such as threads."""

NUMBERS = frozenset(("settings", "grad_norm"))
"""Kinds of events whose value is a float64."""


class Event(NamedTuple):
    """What one value of a trace is of.

    Attributes:
        kind: data, random, attributes, weights, buffers, inputs, outputs, loss, value, grad_out,
            grad_in, raw_grad (of a weight, as it is accumulated), grad_norm, grad (of a weight,
            before the optimizer's step), state, settings (both of an optimizer), new_weights or
            new_buffers; `again_` before it where a checkpointed part runs again.
        layer: the layer's path; of data and the like their name; of settings the optimizer's.
        part: which weight, buffer, tensor or setting of it.
        call: which call of the layer in this step, from 0.
        parent: the module that was running; empty: none.
        tag: tensors with one number are one tensor; -1: none.
    """

    kind: str
    layer: str
    part: str = ""
    call: int = 0
    parent: str = ""
    tag: int = -1

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells it from the others of its step."""
        return self[:4]

    def __str__(self) -> str:
        part = f".{self.part}" if self.part else ""
        call = f", call {self.call}" if self.call else ""
        return f"{self.kind} of {self.layer}{part}{call}"
