"""Compute statistics of a torch model's layers during training. torch is imported here.

In: a torch.nn.Module. Out: numbers by `layer/source/stat` for each step. Open tooled_model.py
first. measuring/ has the statistics, tracing/ the fingerprints of whole steps. All uses of torch's
private names are in torch_private.py; models.py and table.py do not import torch.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = (
    "activations",
    "models",
    "parameters",
    "table",
    "tooled_model",
    "tracing",
)
