"""Unpacking ggml's block types, against the Python package `gguf`."""

import gguf
import numpy as np
import pytest
import torch
from comfyui_wanvideo.tools.tiny.gguf import PACKED_TYPES
from comfyui_wanvideo.tools.tiny.gguf_pack import pack
from comfyui_wanvideo.wanvideo.weights.formats import gguf as formats
from comfyui_wanvideo.wanvideo.weights.formats.gguf import GGUF_FORMATS, gguf_format
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Where a block has float16 numbers; all other bytes may be anything.
HALVES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}
# Relative error of normally distributed values in each type, packed in one pass without a search.
BOUNDS = {
    "Q4_0": 0.10,
    "Q4_1": 0.09,
    "Q5_0": 0.05,
    "Q5_1": 0.045,
    "Q8_0": 0.007,
    "Q2_K": 0.35,
    "Q3_K": 0.22,
    "Q4_K": 0.09,
    "Q5_K": 0.045,
    "Q6_K": 0.022,
    "IQ4_NL": 0.10,
    "IQ4_XS": 0.10,
}
every_type = pytest.mark.parametrize("name", PACKED_TYPES)


def random_blocks(name: str, rows: int, blocks: int, seed: int = 0) -> np.ndarray:
    """Packed rows of random bytes whose scales are ordinary numbers."""
    generator = np.random.default_rng(seed)
    size = GGUF_FORMATS[name].block_bytes
    content = generator.integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    for place in HALVES[name]:
        scales = generator.standard_normal((rows, blocks, 1)).astype(np.float16)
        content[..., place : place + 2] = scales.view(np.uint8)
    return content.reshape(rows, blocks * size)


def reference(name: str, packed: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[name]))


def test_the_table_has_every_type_once():
    assert set(GGUF_FORMATS) == set(PACKED_TYPES) == set(HALVES)


@every_type
def test_block_sizes_are_those_of_the_package(name):
    kind = GGUF_FORMATS[name]
    expected = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    assert (kind.block_values, kind.block_bytes) == expected


@every_type
@settings(max_examples=15)
@given(rows=st.integers(1, 9), blocks=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_values_equal_the_package_s_bit_for_bit(name, rows, blocks, seed):
    packed = random_blocks(name, rows, blocks, seed)
    found = gguf_format(name).decode(torch.from_numpy(packed), torch.float32)
    assert torch.equal(found, reference(name, packed))


@every_type
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_results_are_rounded_once_from_float32(name, dtype):
    packed = random_blocks(name, 7, 3)
    found = gguf_format(name).decode(torch.from_numpy(packed), dtype)
    assert torch.equal(found, reference(name, packed).to(dtype))


@every_type
@pytest.mark.parametrize("rows", [1, 6, 7, 8, 23])
def test_the_result_does_not_depend_on_the_groups_of_rows(name, rows, monkeypatch):
    packed = random_blocks(name, rows, 2)
    columns = 2 * GGUF_FORMATS[name].block_values
    monkeypatch.setattr(formats, "_AT_ONCE_ON_CPU", 7 * columns)
    found = gguf_format(name).decode(torch.from_numpy(packed), torch.float32)
    assert torch.equal(found, reference(name, packed))


@every_type
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_nothing_is_unpacked_to_nothing(name, shape):
    kind = gguf_format(name)
    packed = torch.empty(shape[0], shape[1] * kind.block_bytes, dtype=torch.uint8)
    assert kind.decode(packed, torch.bfloat16).shape == (shape[0], shape[1] * kind.block_values)


@every_type
def test_packed_values_are_near_the_original_ones(name):
    values = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    found = gguf_format(name).decode(torch.from_numpy(pack(values, name)), torch.float32).numpy()
    assert np.linalg.norm(found - values) / np.linalg.norm(values) < BOUNDS[name]


@every_type
def test_some_rows_unpack_to_those_rows(name):
    packed = torch.from_numpy(random_blocks(name, 11, 2))
    rows = torch.tensor([9, 0, 9, 4])
    whole = gguf_format(name).materialize({"weight": packed}, torch.float32)
    assert torch.equal(gguf_format(name).materialize({"weight": packed[rows]}, torch.float32), whole[rows])


@every_type
@pytest.mark.parametrize("rows", [1, 3])
def test_bytes_at_an_odd_address_unpack_as_well(name, rows):
    packed = random_blocks(name, rows, 1)
    shifted = torch.cat([torch.zeros(1, dtype=torch.uint8), torch.from_numpy(packed).flatten()])[1:]
    found = gguf_format(name).decode(shifted.view(packed.shape), torch.float32)
    assert torch.equal(found, reference(name, packed))


class _LargestTensor(TorchDispatchMode):
    """Bytes of the largest float32 tensor that an operation makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32:
                self.largest = max(self.largest, tensor.nbytes)
        return result


@every_type
def test_only_a_group_of_rows_is_in_float32(name):
    packed = torch.from_numpy(random_blocks(name, 600, 1024 // GGUF_FORMATS[name].block_values))
    with _LargestTensor() as seen:
        gguf_format(name).decode(packed, torch.bfloat16)
    assert 0 < seen.largest <= 4 * formats._AT_ONCE_ON_CPU < 600 * 1024 * 4


def test_a_group_of_rows_on_a_device_takes_less_than_64_mb():
    # at most four tensors of a group are alive: two in float32, one of indices, one in bytes
    assert formats._AT_ONCE_ON_DEVICE * (4 + 4 + 4 + 1) < 64 * 2**20


@pytest.mark.parametrize("name", ["Q4_K", "IQ4_XS"])
def test_unpacking_compiles_to_one_graph(name):
    packed = random_blocks(name, 5, 2)
    kind = gguf_format(name)
    compiled = torch.compile(
        lambda content: kind.decode(content, torch.float32), backend="aot_eager", fullgraph=True
    )
    assert torch.equal(compiled(torch.from_numpy(packed)), reference(name, packed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_type
def test_a_linear_layer_multiplies_with_the_unpacked_matrix(name, dtype):
    packed = pack(np.random.default_rng(0).standard_normal((24, 512)).astype(np.float32), name)
    layer = WanLinear(512, 24, bias=False)
    layer.store_as(gguf_format(name), {"weight": torch.from_numpy(packed)})
    x = torch.randn(3, 512, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, reference(name, packed).to(dtype)))


def test_a_type_that_is_not_read_is_a_key_error():
    with pytest.raises(KeyError):
        gguf_format("IQ2_XS")
