"""The format of a recorded trace: its keys and events. Does not import torch.

`VALUES` is an int64 array for each traced step, with a fingerprint for each event in the order of
computation; for `grad_norm`, and for numbers among `settings`, the bits of a float64. `ORDER` is a
JSON text that lists the events. It is recorded before the first array that it describes, and again
when it changes. `ATTRIBUTES` is a JSON text too: an object with the attributes of layers,
optimizers and the environment, by name.
"""

from typing import NamedTuple

VALUES, ORDER, ATTRIBUTES = "trace/values", "trace/order", "trace/attributes"
KEYS = frozenset((VALUES, ORDER, ATTRIBUTES))

ENVIRONMENT = "environment"
"""The name in the attributes of the environment, such as the number of threads."""

NUMBERS = frozenset(("settings", "grad_norm"))
"""Kinds of events whose value is a float64."""


class Event(NamedTuple):
    """The description of one value of a trace.

    Attributes:
        kind: data, random, attributes, weights, buffers, inputs, outputs, loss, value, grad_out,
            grad_in, raw_grad (of a weight, as it is accumulated), grad_norm, grad (of a weight,
            before the optimizer's step), state, settings (both of an optimizer), new_weights or
            new_buffers; prefixed by `again_` when a checkpointed part runs again.
        layer: the layer's path; for data and the like, their name; for settings, the optimizer's
            name.
        part: the weight, buffer, tensor or setting of the layer.
        call: the number of the layer's call in this step, from 0.
        parent: the module that was running; empty if there was none.
        tag: equal for events of the same tensor; -1 if there is none.
    """

    kind: str
    layer: str
    part: str = ""
    call: int = 0
    parent: str = ""
    tag: int = -1

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The key that identifies the event within its step."""
        return self[:4]

    def __str__(self) -> str:
        part = f".{self.part}" if self.part else ""
        call = f", call {self.call}" if self.call else ""
        return f"{self.kind} of {self.layer}{part}{call}"
