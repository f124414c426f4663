"""Values that cross the border between a check and the student's code: data only, never pickle.

A message is JSON for the structure and raw little-endian buffers for the arrays::

    4 bytes  length of the JSON part
    JSON     {"tree": ..., "buffers": [length, ...]}
    bytes    the buffers, one after the other

Both sides use it, in the student's own notebook too, so that an answer that passes there meets
exactly the same values in the grader. Decoding runs no code, and its work is bounded by the bytes
received: each buffer belongs to one array, and no hash table is filled with colliding keys.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import struct
import sys
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import numpy as np

from irlbook.errors import CodecError

__all__ = ["MAX_BUFFERS", "MAX_COLLISIONS", "MAX_DEPTH", "MAX_JSON", "MAX_NODES", "dumps", "loads"]

MAX_JSON = 8 * 2**20
MAX_BUFFERS = 128 * 2**20
MAX_DEPTH = 24
MAX_NODES = 2**20
MAX_COLLISIONS = 64  # keys with one hash: more make a set's work quadratic

_DTYPE = re.compile(r"[<|](b1|[iu][1248]|f[248]|c8|c16|[US][1-9]\d{0,5})")
_TORCH = {
    f"torch.{name}": name
    for name in (
        "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128"
    ).split()
}
_DATACLASSES = {"TabularMDP": "irlbook.mdp", "Trajectories": "irlbook.mdp"}
_DRAWN = (("matplotlib.figure", "Figure"), ("matplotlib.axes", "Axes"))


def _is_a(value: Any, module: str, name: str) -> bool:
    """isinstance without importing: no value of a class exists before its module is loaded."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name, ()))


class _Encoder:
    def __init__(self, rng_state: bool) -> None:
        self.buffers: list[bytes] = []
        self.rng_state = rng_state

    def buffer(self, array: np.ndarray) -> dict[str, Any]:
        array = np.asarray(array)
        if array.dtype.kind == "O":
            raise CodecError("an array of Python objects (are its rows of different lengths?)")
        if array.dtype == np.longdouble and array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        code = array.dtype.str
        if array.dtype.itemsize and not _DTYPE.fullmatch(code):
            raise CodecError(f"an array of dtype {array.dtype}")
        if not array.dtype.itemsize:  # an array of empty strings
            array, code = array.astype("<U1"), "<U1"
        self.buffers.append(array.tobytes())
        return {"d": code, "s": list(array.shape), "i": len(self.buffers) - 1}

    def tree(self, value: Any, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise CodecError(f"values nested more than {MAX_DEPTH} deep (does a list hold itself?)")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, np.generic):
            return {"t": "scalar", **self.buffer(np.asarray(value))}
        if isinstance(value, int):
            value = int(value)
            if abs(value) >= 2**128:
                raise CodecError("an integer of more than 128 bits")
            return value
        if isinstance(value, float):
            return float(value)
        if isinstance(value, complex):
            return {"t": "complex", "v": [value.real, value.imag]}
        if isinstance(value, str):
            return {"t": "str", "v": str.__str__(value)}
        if isinstance(value, np.ndarray):
            return {"t": "array", **self.buffer(value)}
        if isinstance(value, np.random.Generator):
            state = value.bit_generator.state if self.rng_state else {}
            kind = type(value.bit_generator).__name__
            return {"t": "rng", "kind": kind, "v": self.tree(state, depth + 1)}
        if isinstance(value, (list, range)):
            return {"t": "list", "v": [self.tree(v, depth + 1) for v in value]}
        if isinstance(value, tuple):
            return {"t": "tuple", "v": [self.tree(v, depth + 1) for v in value]}
        if isinstance(value, dict):
            pairs = [[self.tree(k, depth + 1), self.tree(v, depth + 1)] for k, v in value.items()]
            return {"t": "dict", "v": pairs}
        if isinstance(value, (set, frozenset)):
            return {"t": "set", "v": [self.tree(v, depth + 1) for v in sorted(value, key=repr)]}
        if _is_a(value, "torch", "Tensor"):
            return self.tensor(value)
        if hasattr(value, "tocsr") and type(value).__module__.startswith("scipy.sparse"):
            csr = value.tocsr()
            parts = [self.buffer(a) for a in (csr.data, csr.indices, csr.indptr)]
            kind = "matrix" if type(value).__name__.endswith("_matrix") else "array"
            return {"t": "csr", "kind": kind, "s": list(csr.shape), "v": parts}
        for name, module in _DATACLASSES.items():
            if _is_a(value, module, name):
                fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
                pairs = [[k, self.tree(v, depth + 1)] for k, v in fields.items()]
                return {"t": "dataclass", "name": name, "v": pairs}
        if any(_is_a(value, *place) for place in _DRAWN):
            figures = import_module("irlbook.exercises.figures")
            return {"t": "picture", "v": self.tree(figures.described(value), depth + 1)}
        raise CodecError(f"a value of type {type(value).__name__}")

    def tensor(self, value: Any) -> dict[str, Any]:
        torch = sys.modules["torch"]
        name = _TORCH.get(str(value.dtype))
        if name is None:
            raise CodecError(f"a tensor of dtype {value.dtype}")
        plain = value.detach().cpu()
        plain = (plain.to_dense() if plain.is_sparse else plain).contiguous()
        if name == "bfloat16":  # numpy has no such type: carry the bits
            plain = plain.view(torch.int16)
        node = self.buffer(plain.numpy())
        return {"t": "tensor", "name": name, "grad": bool(value.requires_grad), **node}


def _check_hashes(keys: Iterable[Any]) -> None:
    if max(Counter(map(hash, keys)).values(), default=0) > MAX_COLLISIONS:
        raise CodecError("many keys with the same hash")


class _Decoder:
    def __init__(self, buffers: list[memoryview]) -> None:
        self.buffers: list[memoryview | None] = [*buffers]
        self.nodes = 0

    def array(self, node: dict[str, Any]) -> np.ndarray:
        code, shape, index = node["d"], node["s"], node["i"]
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise CodecError("an unknown array type")
        if not isinstance(index, int) or not 0 <= index < len(self.buffers) or len(shape) > 16:
            raise CodecError("a broken array")
        if not all(type(n) is int and 0 <= n < 2**40 for n in shape):
            raise CodecError("a broken array shape")
        dtype, raw = np.dtype(code), self.buffers[index]
        if raw is None:
            raise CodecError("two arrays that share one buffer")
        self.buffers[index] = None
        if math.prod(shape) * dtype.itemsize != len(raw):
            raise CodecError("an array whose shape does not fit its data")
        return np.frombuffer(raw, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="))

    def tree(self, node: Any, depth: int = 0) -> Any:
        if depth > MAX_DEPTH + 1:
            raise CodecError("values nested too deep")
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise CodecError("more values than allowed; put numbers into one array")
        if node is None or isinstance(node, (bool, int, float)):
            return node
        kind = node["t"]
        if kind == "str":
            return str(node["v"])
        if kind == "complex":
            real, imag = node["v"]
            return complex(float(real), float(imag))
        if kind == "array":
            return self.array(node)
        if kind == "scalar":
            return self.array(node)[()]
        if kind in ("list", "tuple", "set"):
            values = [self.tree(v, depth + 1) for v in node["v"]]
            if kind == "set":
                _check_hashes(values)
            return {"list": list, "tuple": tuple, "set": set}[kind](values)
        if kind == "dict":
            pairs = [(self.tree(k, depth + 1), self.tree(v, depth + 1)) for k, v in node["v"]]
            _check_hashes(key for key, _ in pairs)
            return dict(pairs)
        if kind == "picture":
            figures = import_module("irlbook.exercises.figures")
            return figures.picture(self.tree(node["v"], depth + 1))
        if kind == "rng":
            bits = {"PCG64": np.random.PCG64, "PCG64DXSM": np.random.PCG64DXSM}[node["kind"]](0)
            bits.state = self.tree(node["v"], depth + 1)
            return np.random.Generator(bits)
        if kind == "tensor":
            return self.tensor(node)
        if kind == "csr":
            sparse = import_module("scipy.sparse")
            data, indices, indptr = (self.array(part) for part in node["v"])
            make = sparse.csr_matrix if node["kind"] == "matrix" else sparse.csr_array
            matrix = make((data, indices, indptr), shape=tuple(int(n) for n in node["s"]))
            matrix.check_format(full_check=True)  # indices out of range would crash compiled code
            return matrix
        if kind == "dataclass":
            made = getattr(import_module(_DATACLASSES[node["name"]]), node["name"])
            return made(**{str(k): self.tree(v, depth + 1) for k, v in node["v"]})
        raise CodecError(f"an unknown kind of value: {kind!r}")

    def tensor(self, node: dict[str, Any]) -> Any:
        torch = import_module("torch")
        if node["name"] not in _TORCH.values():
            raise CodecError("an unknown tensor type")
        tensor = torch.from_numpy(self.array(node))
        if node["name"] == "bfloat16":
            tensor = tensor.view(torch.bfloat16)
        return tensor.requires_grad_() if node["grad"] is True else tensor


def dumps(value: Any, *, rng_state: bool = True) -> bytes:
    """Encode data as bytes.

    Args:
        value: None, bool, int, float, complex, str, list, tuple, dict, set, numpy scalars, arrays
            and Generators, scipy.sparse matrices (become CSR), torch tensors, the dataclasses
            `TabularMDP` and `Trajectories`, and Matplotlib figures and axes (become a `Picture`).
        rng_state: False leaves out the state of Generators (to compare arguments before and after).

    Raises:
        CodecError: a value of another type, an array of objects, or too much data.
    """
    encoder = _Encoder(rng_state)
    tree = encoder.tree(value)
    sizes = [len(b) for b in encoder.buffers]
    text = json.dumps({"tree": tree, "buffers": sizes}, separators=(",", ":")).encode()
    if len(text) > MAX_JSON or sum(sizes) > MAX_BUFFERS:
        raise CodecError(f"more data than allowed ({(len(text) + sum(sizes)) / 2**20:.0f} MB)")
    return b"".join([struct.pack("<I", len(text)), text, *encoder.buffers])


def loads(message: bytes) -> Any:
    """Decode what `dumps` wrote; bytes from an untrusted process are safe to decode.

    Raises:
        CodecError: the bytes are not a message, or hold something that is not allowed.
    """
    try:
        (length,) = struct.unpack_from("<I", message)
        if length > MAX_JSON or len(message) > MAX_JSON + MAX_BUFFERS:
            raise CodecError("a message larger than allowed")
        head = json.loads(bytes(message[4 : 4 + length]))
        view, start = memoryview(message), 4 + length
        buffers = []
        for size in head["buffers"]:
            if type(size) is not int or size < 0 or start + size > len(message):
                raise CodecError("a message cut short")
            buffers.append(view[start : start + size])
            start += size
        return _Decoder(buffers).tree(head["tree"])
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(f"a broken message ({type(error).__name__})") from None
