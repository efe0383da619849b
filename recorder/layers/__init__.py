"""Statistics of a torch model's layers, taken as they are called. torch is imported here.

In: a torch.nn.Module. Out: numbers by `layer/source/stat`, a step at a time. Open tooled_model.py
first; torch's private names are in torch_private.py, table.py needs no torch.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "activations",
    "calls",
    "measures",
    "table",
    "tooled_model",
    "torch_private",
)
