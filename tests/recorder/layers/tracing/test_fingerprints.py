"""Fingerprints: what they see, and what they do not mind."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flexrec.recorder import TooledModel
from flexrec.recorder.files.names import ON_ACCELERATOR
from flexrec.recorder.layers.measuring import measures
from flexrec.recorder.layers.measuring.measures import Fingerprint, fingerprint, of_text
from flexrec.recorder.layers.tracing.fingerprints import of_all

Taker = Callable[[Tensor], Fingerprint]


def of_accelerators(tensor: Tensor) -> int:
    """The formula of accelerators, on the CPU."""
    head = of_text(f"{tensor.dtype}{tuple(tensor.shape)}")
    return int(measures._on_device(tensor.contiguous().reshape(-1), head))


TAKERS = [fingerprint, of_accelerators]


def one_bit(tensor: Tensor) -> Tensor:
    """The same with the last bit of the last element turned."""
    bits = tensor.clone().view(torch.int32)
    bits.view(-1)[-1] ^= 1
    return bits.view(torch.float32)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "one bit": one_bit,
    "two elements swapped": lambda t: t.view(-1)[[1, 0, *range(2, t.numel())]].view(t.shape),
    "transposed": lambda t: t.T.contiguous(),
    "cast": lambda t: t.double(),
    "another shape": lambda t: t.reshape(-1),
    "rows permuted": lambda t: t.flip(0),
    "negative zero": lambda t: torch.where(t == 0, -0.0, t),
    "NaN": lambda t: torch.where(t == 0, torch.nan, t),
    "bits as integers": lambda t: t.view(torch.int32),
    "a zero more": lambda t: torch.cat([t, torch.zeros(1, t.shape[1])]),
}


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_seen(take: Taker, change: Callable[[Tensor], Tensor]) -> None:
    tensor = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    tensor[2, 1] = 0.0
    assert take(tensor) == take(tensor.clone())
    assert take(tensor) != take(change(tensor))


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_every_element_counts(take: Taker, dtype: torch.dtype) -> None:
    zeros = torch.zeros(300, dtype=dtype)
    found = {take(zeros)}
    for i in range(300):
        changed = zeros.clone()
        changed[i] = 1
        found.add(take(changed))
    assert len(found) == 301
    kinds = {fingerprint: range(ON_ACCELERATOR), of_accelerators: range(ON_ACCELERATOR, 1 << 53)}
    assert all(value in kinds[take] for value in map(int, found))


@pytest.mark.parametrize("take", TAKERS)
def test_strides_do_not_matter(take: Taker) -> None:
    tensor = torch.arange(12.0).reshape(3, 4)
    assert take(tensor.T.contiguous().T) == take(tensor)
    assert take(tensor[:, :2]) == take(tensor[:, :2].clone())
    ones = torch.ones(1, 4)
    assert take(ones.expand(3, 4)) == take(torch.ones(3, 4))


def test_a_large_tensor_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    whole = of_accelerators(tensor)
    monkeypatch.setattr(measures, "_AT_ONCE", 7)
    assert of_accelerators(tensor) == whole


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(0),
        torch.tensor(1.0),
        torch.tensor([1 + 2j]),
        torch.tensor([1 + 2j]).conj(),
        torch.eye(3).to_sparse(),
        torch.zeros(2, dtype=torch.float8_e5m2),
    ],
    ids=["empty", "scalar", "complex", "conjugate", "sparse", "float8"],
)
def test_every_kind_of_tensor_has_one(tensor: Tensor) -> None:
    assert fingerprint(tensor) == fingerprint(tensor.clone())


def test_values_together_know_their_order() -> None:
    a, b = torch.zeros(2), torch.ones(2)
    assert of_all((a, b)) != of_all((b, a))
    assert of_all({"x": a, "y": [b, 1, "text"]}) == of_all((a, b, 1, "text"))
    assert of_all((a, 1)) != of_all((a, 2))
    assert of_all(()) is None
    assert of_all(None) is None


@pytest.mark.gpu
@pytest.mark.parametrize("values", [torch.randn(5, 7), torch.zeros(3, dtype=torch.bfloat16)])
def test_on_a_device_it_is_the_formula(values: Any) -> None:
    found = fingerprint(values.cuda())
    assert isinstance(found, Tensor)
    assert found.is_cuda
    assert int(found) == of_accelerators(values)


def test_as_a_statistic_of_every_source() -> None:
    sources = ("inputs", "outputs", "grad_in", "grad_out", "weights", "grad_weights", "updates")
    found = []
    for bias in (0.0, 0.0, 1e-7):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1))
        tooled = TooledModel(model, sources=sources, stats=("fingerprint",))
        with torch.no_grad():
            model[1].bias.add_(bias)
        model(torch.ones(2, 3)).square().sum().backward()
        with torch.no_grad():
            model[0].weight.add_(1.0)
        found.append(tooled.step())
    assert {key.split("/")[1] for key in found[0]} == set(sources)
    assert all(float(value).is_integer() for value in found[0].values())
    assert found[0] == found[1]
    assert found[0]["0/outputs/fingerprint"] == found[2]["0/outputs/fingerprint"]
    assert found[0]["1/outputs/fingerprint"] != found[2]["1/outputs/fingerprint"]


def test_a_chain_tells_whether_an_accelerator_has_a_part() -> None:
    of_cpu, of_accelerator = 7, torch.tensor(ON_ACCELERATOR + 7)
    assert int(measures.chained(of_cpu, of_cpu)) < ON_ACCELERATOR
    for pair in ((of_cpu, of_accelerator), (of_accelerator, of_cpu), (of_accelerator,) * 2):
        assert ON_ACCELERATOR <= int(measures.chained(*pair)) < 1 << 53


@pytest.mark.filterwarnings("ignore:.*are deprecated:UserWarning")
def test_the_scale_and_dtype_of_quantized_tensors_count() -> None:
    whole = torch.arange(4, dtype=torch.int8)
    one, other = (torch._make_per_tensor_quantized_tensor(whole, by, 0) for by in (0.1, 0.2))
    taken = {fingerprint(each) for each in (one, other, whole, one.dequantize())}
    assert len(taken) == 4
    assert fingerprint(one) == fingerprint(one.clone())
