"""The border between check and answer: values come through whole, nothing else does."""

from __future__ import annotations

import json
import pickle
import struct
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from irlbook.errors import CodecError
from irlbook.exercises import codec
from irlbook.mdp import TabularMDP, Trajectories


def there_and_back(value):
    return codec.loads(codec.dumps(value))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**100), 2**100) | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(-9, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(plain)
@settings(max_examples=150, deadline=None)
def test_python_values_survive(value):
    assert repr(there_and_back(value)) == repr(value)


@given(
    hnp.arrays(
        hnp.boolean_dtypes()
        | hnp.integer_dtypes()
        | hnp.floating_dtypes()
        | hnp.complex_number_dtypes(sizes=(64, 128)),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)
@settings(max_examples=150, deadline=None)
def test_arrays_survive(array):
    got = there_and_back(array)
    assert got.dtype == array.dtype.newbyteorder("=") and got.shape == array.shape
    np.testing.assert_array_equal(got, array)
    assert got.flags.writeable


def test_scalars_text_sets_and_views_survive():
    assert there_and_back(np.float32(0.5)) == np.float32(0.5)
    assert type(there_and_back(np.int64(3))) is np.int64
    assert there_and_back({"a", "b"}) == {"a", "b"}
    assert there_and_back(range(3)) == [0, 1, 2]
    assert there_and_back(1 + 2j) == 1 + 2j
    assert list(there_and_back(np.array(["", "yes"]))) == ["", "yes"]
    assert there_and_back(np.array([""])).tolist() == [""]
    transposed = np.arange(6).reshape(2, 3).T
    np.testing.assert_array_equal(there_and_back(transposed), transposed)


def test_generators_go_on_where_they_were():
    rng = np.random.default_rng(3)
    rng.normal(size=5)
    copy = there_and_back(rng)
    np.testing.assert_array_equal(copy.normal(size=4), rng.normal(size=4))
    assert codec.dumps([rng], rng_state=False) == codec.dumps([copy], rng_state=False)


def test_sparse_matrices_and_worlds_survive():
    matrix = sparse.random_array((5, 4), density=0.4, rng=np.random.default_rng(0)).tocoo()
    got = there_and_back(matrix)
    assert got.format == "csr"
    np.testing.assert_array_equal(got.toarray(), matrix.toarray())
    mdp = TabularMDP.create(
        np.full((3, 2, 3), 1 / 3), np.ones((3, 2)) * [[1], [1], [0]], terminal=[2]
    )
    same = there_and_back(mdp)
    np.testing.assert_array_equal(same.transitions.toarray(), mdp.transitions.toarray())
    assert same.discount == mdp.discount and same.terminal.tolist() == mdp.terminal.tolist()
    paths = Trajectories.from_list([([0, 1, 2], [0, 1]), ([1, 2], [0])])
    assert there_and_back(paths).lengths.tolist() == [2, 1]


def test_tensors_survive():
    torch = pytest.importorskip("torch")
    for dtype in (torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16):
        tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
        got = there_and_back(tensor)
        assert got.dtype == dtype and torch.equal(got, tensor)
    assert there_and_back(torch.ones(2, requires_grad=True)).requires_grad


@pytest.mark.parametrize(
    "value",
    [object(), lambda: 0, np.array([object()]), [object()], {"a": open}, (x for x in ()), 2**200],
    ids=["object", "function", "object array", "in a list", "in a dict", "generator", "huge int"],
)
def test_what_is_not_data_is_refused(value):
    with pytest.raises(CodecError):
        codec.dumps(value)


def test_a_list_that_holds_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(CodecError, match="hold itself"):
        codec.dumps(loop)


def test_too_much_data_is_refused():
    with pytest.raises(CodecError, match="more data"):
        codec.dumps(np.zeros(codec.MAX_BUFFERS // 8 + 1))


def message(tree, buffers=(b"",)):
    text = json.dumps({"tree": tree, "buffers": [len(b) for b in buffers]}).encode()
    return struct.pack("<I", len(text)) + text + b"".join(buffers)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 40,
        pickle.dumps([1, 2]),
        struct.pack("<I", 2**31) + b"[]",
        message({"t": "array", "d": "|O8", "s": [1], "i": 0}, (b"12345678",)),
        message({"t": "array", "d": "<f8", "s": [10**11], "i": 0}, (b"12345678",)),
        message({"t": "array", "d": "<f8", "s": [-1], "i": 0}, (b"12345678",)),
        message({"t": "array", "d": "<f8", "s": [1], "i": 7}, (b"12345678",)),
        message({"t": "array", "d": "<U0", "s": [10**12], "i": 0}),
        message({"t": "dataclass", "name": "Popen", "v": []}),
        message({"t": "what"}),
        message({"t": "rng", "kind": "system", "v": None}),
        message([1]),
        b"\x10\x27\x00\x00" + b"[" * 10_000,
    ],
)
def test_broken_or_forged_messages_are_refused_without_harm(data):
    with pytest.raises(CodecError):
        codec.loads(data)


def test_sparse_indices_out_of_range_are_refused():
    forged = sparse.csr_array(np.eye(3))
    forged.indices[0] = 10**6
    with pytest.raises(CodecError):
        there_and_back(forged)


def message(tree, *buffers: bytes) -> bytes:
    """A message as a hostile process may write it."""
    text = json.dumps({"tree": tree, "buffers": [len(b) for b in buffers]}).encode()
    return b"".join([struct.pack("<I", len(text)), text, *buffers])


def test_a_buffer_belongs_to_one_array():
    node = {"t": "array", "d": "<f8", "s": [2**17], "i": 0}
    assert codec.loads(message(node, bytes(2**20))).shape == (2**17,)
    with pytest.raises(CodecError, match="share one buffer"):
        codec.loads(message({"t": "list", "v": [node] * 6000}, bytes(2**20)))


def test_the_number_of_values_is_bounded():
    assert len(codec.loads(codec.dumps(list(range(10**5))))) == 10**5
    with pytest.raises(CodecError, match="more values than allowed"):
        codec.loads(message({"t": "list", "v": [0] * (codec.MAX_NODES + 1)}))


class Counted(int):
    """An integer that counts how often it is compared."""

    comparisons = 0

    def __hash__(self):
        return int.__hash__(self)

    def __eq__(self, other):
        Counted.comparisons += 1
        return int.__eq__(self, other)


@pytest.mark.parametrize("kind", ["set", "dict"])
def test_keys_that_collide_do_not_make_quadratic_work(kind, monkeypatch):
    modulus = sys.hash_info.modulus
    colliding = [modulus * n for n in range(1, 20_000)]
    tree = (
        {"t": "set", "v": colliding}
        if kind == "set"
        else {"t": "dict", "v": [[k, 0] for k in colliding]}
    )
    real = codec._Decoder.tree

    def counted(self, node, depth=0):
        value = real(self, node, depth)
        return Counted(value) if type(value) is int else value

    monkeypatch.setattr(codec._Decoder, "tree", counted)
    Counted.comparisons = 0
    with pytest.raises(CodecError, match="same hash"):
        codec.loads(message(tree))
    assert Counted.comparisons < 10 * len(colliding)
    far = [n * 2**40 for n in range(20_000)]  # honest keys
    assert len(codec.loads(message({"t": "set", "v": far}))) == 20_000
