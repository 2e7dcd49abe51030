"""Files made to change, overrun or fill what reads them are refused; sound ones still load.

Pickles are written opcode by opcode, in the protocols that torch writes, for both readers and both
formats.
"""

import copyreg
import io
import itertools
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from linearize import unpickle
from linearize.models import torch_archive, torch_modules, torch_pickle
from linearize.models.torch_archive import TorchArchiveError

DATA = np.arange(4, dtype="<f4").tobytes()
READERS = pytest.mark.parametrize("reader", [torch_archive, torch_modules])
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])


def literal(value):
    """Opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def short(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module, name, protocol=2):
    if protocol < 4:
        return f"c{module}\n{name}\n".encode()
    return short(module) + short(name) + b"\x93"


def storage(protocol=2, size=4, key="0", kind="FloatStorage"):
    parts = text("storage") + named("torch", kind, protocol) + text(key) + text("cpu")
    return b"(" + parts + literal(size) + b"tQ"


def tensor(protocol=2, offset=0, shape=(4,), strides=(1,), made=b"R", **of_storage):
    arguments = storage(protocol, **of_storage) + b"".join(map(literal, (offset, shape, strides)))
    call = named("torch._utils", "_rebuild_tensor_v2", protocol)
    return call + b"(" + arguments + b"\x89Nt" + made


def state(value, protocol=2, before=b""):
    """``{"x": value}``, the protocols of frames with one around all."""
    body = before + b"}" + text("x") + value + b"s."
    frame = b"\x95" + struct.pack("<Q", len(body)) if protocol >= 4 else b""
    return b"\x80" + bytes([protocol]) + frame + body


def archive(payload, members=(("0", DATA),)):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", payload)
        for name, data in members:
            file.writestr(f"archive/data/{name}", data)
    return out.getvalue()


def stream(payload, keys=("0",)):
    head = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    tail = b"".join(struct.pack("<q", 4) + DATA for _ in keys)
    return b"".join(head) + payload + pickle.dumps(list(keys), 2) + tail


@pytest.fixture
def read(tmp_path):
    def reads(reader, zipped, payload):
        path = tmp_path / "a.pt"
        path.write_bytes(archive(payload) if zipped else stream(payload))
        return reader.read(path)

    return reads


@READERS
@FORMATS
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_handmade_files_are_sound(read, reader, zipped, protocol):
    got = read(reader, zipped, state(tensor(protocol), protocol))
    np.testing.assert_array_equal(got["x"], [0, 1, 2, 3])


CHANGES = {
    "attributes": {"shape": (64,), "size": 64, "offset": 9},
    "slots": (None, {"shape": (64,), "size": 64}),
    "both": ({"strides": (8,)}, {"shape": (64,)}),
    "a tuple": (1, 2, 3, 4),
    "nothing": {},
}
TARGETS = {
    "view": lambda p: tensor(p),
    "memoized view": lambda p: tensor(p) + (b"\x94h\x00" if p >= 4 else b"q\x00h\x00"),
    "parameter": lambda p: (
        named("torch._utils", "_rebuild_parameter", p) + b"(" + tensor(p) + b"\x89NtR"
    ),
    "storage": lambda p: storage(p),
    "kind": lambda p: named("torch", "FloatStorage", p),
    "function": lambda p: named("torch._utils", "_rebuild_tensor_v2", p),
    "class": lambda p: named("collections", "OrderedDict", p),
    "tuple": lambda p: b")",
    "list": lambda p: b"]",
    "dict": lambda p: b"}",
    "text": lambda p: text("a"),
    "integer": lambda p: b"K\x01",
    "none": lambda p: b"N",
}


@READERS
@FORMATS
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("target", TARGETS)
def test_build_changes_nothing(read, reader, zipped, protocol, target):
    for change in CHANGES.values():
        built = TARGETS[target](protocol) + literal(change) + b"b"
        for payload in (
            state(built, protocol),
            state(tensor(protocol), protocol, before=built + b"0"),
        ):
            with pytest.raises(TorchArchiveError, match="after it was made"):
                read(reader, zipped, payload)


FILLS = {
    "APPEND": b"K\x01a",
    "APPENDS": b"(K\x01K\x02e",
    "SETITEM": b"K\x00K\x01s",
    "SETITEMS": b"(K\x00K\x01K\x02K\x03u",
    "ADDITEMS": b"(K\x01K\x02\x90",
}


@READERS
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("target", sorted(TARGETS.keys() - {"list", "dict"}))
def test_only_lists_and_mappings_are_filled(read, reader, fill, target):
    with pytest.raises(TorchArchiveError, match="after it was made"):
        read(reader, True, state(tensor(), before=TARGETS[target](2) + FILLS[fill] + b"0"))


CALLS = {
    "REDUCE": lambda callee, arguments: callee + arguments + b"R",
    "NEWOBJ": lambda callee, arguments: callee + arguments + b"\x81",
    "NEWOBJ_EX": lambda callee, arguments: callee + arguments + b"}\x92",
    "OBJ": lambda callee, arguments: b"(" + callee + b"K\x01o",
}


@READERS
@FORMATS
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("callee", sorted(TARGETS.keys() - {"function", "class"}))
def test_only_words_are_called(read, reader, zipped, call, callee):
    called = CALLS[call](TARGETS[callee](2), b"K\x01\x85")
    with pytest.raises(TorchArchiveError, match=r"calls .*nothing was run"):
        read(reader, zipped, state(tensor(), before=called + b"0"))


@READERS
@pytest.mark.parametrize("arguments", [b"N", b"]", b"}", text("a"), storage(), tensor()])
def test_arguments_are_a_tuple(read, reader, arguments):
    call = named("collections", "OrderedDict") + arguments + b"R0"
    with pytest.raises(TorchArchiveError, match="nothing was run"):
        read(reader, True, state(tensor(), before=call))


@READERS
@pytest.mark.parametrize(
    "call",
    [
        b"(X\x01\x00\x00\x00aios\nsystem\n",
        b"(cos\nsystem\nX\x01\x00\x00\x00ao",
        b"(X\x01\x00\x00\x00aibuiltins\neval\n",
        short("os") + short("system") + b"\x93",
        short("linearize.models.torch_pickle") + short("_WORDS.clear") + b"\x93)R",
        short("collections") + short("OrderedDict.clear") + b"\x93",
        b"ccollections\nOrderedDict.fromkeys\n",
    ],
)
def test_no_other_word_does_anything(read, reader, call):
    words = dict(torch_pickle._WORDS)
    if reader is torch_modules and b"linearize" in call:
        read(reader, True, state(tensor(), before=call + b"0"))  # a shell
    else:
        with pytest.raises(TorchArchiveError, match="nothing was run"):
            read(reader, True, state(tensor(), before=call + b"0"))
    assert words == torch_pickle._WORDS


@READERS
@FORMATS
@pytest.mark.parametrize("opcode", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_extensions_of_the_process_are_not_reached(
    read, reader, zipped, opcode, tmp_path, monkeypatch
):
    monkeypatch.setitem(copyreg._extension_cache, 0xF0, os.mkdir)
    call = opcode + text(str(tmp_path / "trace")) + b"\x85R0"
    with pytest.raises(TorchArchiveError, match="nothing was run"):
        read(reader, zipped, state(tensor(), before=call))
    assert not (tmp_path / "trace").exists()


@READERS
@pytest.mark.parametrize("opcode", [b"P0\n", b"\x97", b"N\x98", b"g0\n", b"p0\n", b"\xff"])
def test_other_opcodes_are_refused(read, reader, opcode):
    with pytest.raises(TorchArchiveError, match="opcode"):
        read(reader, True, state(tensor(), before=b"N" + opcode))


@READERS
@FORMATS
@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (5,)},
        {"shape": (64,)},
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**62},
        {"strides": (2,)},
        {"strides": (-1,)},
        {"strides": (2**63,)},
        {"shape": (2, 2), "strides": (1,)},
        {"shape": (2, 2), "strides": (3, 1)},
        {"shape": (2**40,), "strides": (0,)},
        {"shape": (2**32, 2**32), "strides": (0, 0)},
        {"shape": (5,), "strides": (0,)},
        {"shape": (-1,)},
        {"shape": (0, 2**40, 2**40), "strides": (1, 1, 1)},
        {"shape": (0, 10**5000), "strides": (1, 1)},
        {"shape": (1,) * 65, "strides": (1,) * 65},
        {"shape": (2**31,) * 10**4, "strides": (1,) * 10**4},
        {"shape": [4], "strides": [1]},
        {"shape": (True,)},
        {"shape": ("4",)},
        {"shape": ((4,),)},
        {"shape": None},
        {"offset": 0.0},
        {"offset": None},
    ],
)
def test_a_tensor_that_is_not_within_its_storage_is_named(read, reader, zipped, wrong):
    with pytest.raises(TorchArchiveError, match="tensor 'x'") as caught:
        read(reader, zipped, state(tensor(**wrong)))
    assert len(str(caught.value)) < 2000


def test_bounds_are_those_of_counting():
    """All views of up to two axes of a storage of four: read where each element is in it."""
    flat = np.arange(4, dtype=np.float32)
    held = torch_pickle.Storage("0", flat.dtype, 4)
    fits = 0
    for offset, *sides in itertools.product(range(5), range(4), range(4), range(4), range(4)):
        shape, strides = tuple(sides[:2]), tuple(sides[2:])
        at = [offset + np.dot(index, strides) for index in np.ndindex(shape)]
        views = {"x": torch_pickle.Strided(held, offset, shape, strides)}
        if len(at) <= 4 and all(i < 4 for i in at):
            got = torch_archive._materialise(views, lambda _: DATA, 1000)["x"]
            np.testing.assert_array_equal(got, flat[np.array(at, int)].reshape(shape))
            fits += 1
        else:
            with pytest.raises(TorchArchiveError, match="'x'"):
                torch_archive._materialise(views, lambda _: DATA, 1000)
    assert fits == 772


@pytest.mark.parametrize("size", [0, 15, 17, 64])
def test_bytes_are_counted_where_they_are_read(size):
    held = torch_pickle.Storage("0", np.dtype(np.float32), 4)
    views = {"x": torch_pickle.Strided(held, 0, (4,), (1,))}
    with pytest.raises(TorchArchiveError, match="'x'"):
        torch_archive._materialise(views, lambda _: bytes(size), 1000)


@pytest.mark.parametrize("change", [{"offset": 1}, {"shape": (5,)}, {"strides": (2,)}])
def test_numpy_checks_bounds_as_well(monkeypatch, change):
    monkeypatch.setattr(torch_archive, "_check", lambda *_: None)
    held = torch_pickle.Storage("0", np.dtype(np.float32), 4)
    views = {"x": torch_pickle.Strided(held, 0, (4,), (1,))._replace(**change)}
    with pytest.raises(TorchArchiveError, match="'x' does not fit"):
        torch_archive._materialise(views, lambda _: DATA, 1000)


@pytest.mark.parametrize("unpickler", [pickle.Unpickler, pickle._Unpickler], ids=["C", "Python"])
@pytest.mark.parametrize("change", ["attributes", "slots", "both"])
def test_no_unpickler_changes_what_is_handed_out(unpickler, change):
    """The second line: were the opcode let through, these objects have nothing to set."""
    held = torch_pickle.Storage("0", np.dtype(np.float32), 4)
    for given in (held, torch_pickle.Strided(held, 0, (4,), (1,)), torch_pickle.TENSOR):
        before = tuple(given)

        class Gives(unpickler):
            def persistent_load(self, pid, given=given):
                return given

        raw = b"\x80\x02NQ" + literal(CHANGES[change]) + b"b."
        with pytest.raises(AttributeError):
            Gives(io.BytesIO(raw)).load()
        assert tuple(given) == before
        assert not hasattr(given, "__dict__")


def test_shells_keep_a_state_and_nothing_else(read):
    mine = named("no.such", "Class") + b")\x81" + literal({"name": "b", "__class__": 1}) + b"b"
    np.testing.assert_array_equal(
        read(torch_modules, True, state(tensor(), before=mine + b"0"))["x"], [0, 1, 2, 3]
    )
    assert not hasattr(unpickle.Shell("a"), "__dict__")


def powers(opcodes, levels=60):
    """Nested pairs of one thing: 2**60 leaves in some hundred bytes."""
    return b"N" + b"q\x01" + b"".join(opcodes + b"q\x01" for _ in range(levels))


PAIRS = powers(b"h\x01\x86")
BOMBS = {
    "text": b"\x8d" + struct.pack("<Q", 2**40),
    "bytes": b"\x8e" + struct.pack("<Q", 2**40),
    "bytearray": b"\x96" + struct.pack("<Q", 2**40),
    "signed": b"\x8d" + struct.pack("<Q", 2**64 - 1),
    "long": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "negative long": b"\x8b" + struct.pack("<i", -1),
    "persistent": PAIRS + b"Q",
    "persistent name": b"(" + PAIRS + b"NNNNtQ",
    "kind": b"(" + text("storage") + PAIRS + text("0") + text("cpu") + b"K\x04tQ",
    "key": b"("
    + text("storage")
    + named("torch", "FloatStorage")
    + PAIRS
    + text("cpu")
    + b"K\x04tQ",
    "called": PAIRS + b")R",
    "changed": PAIRS + b"}b",
    "line": b"c" + b"a" * 2**21,
    "digits": b"L" + b"9" * 10**5 + b"L\n",
}


@READERS
@FORMATS
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_in_little_memory(read, reader, zipped, bomb):
    payload = state(tensor(), before=BOMBS[bomb] + b"0")
    tracemalloc.start()
    try:
        with pytest.raises(TorchArchiveError) as caught:
            read(reader, zipped, payload)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 2000


HARMLESS = {
    "memo of a high index": b"Nr\xff\xff\xff\xff0",
    "frame": b"\x95" + struct.pack("<Q", 2**50),
    "key of pairs": b"}" + PAIRS + b"Ns0",
    "DICT of pairs": b"(" + PAIRS + b"Nd0",
    "OrderedDict of pairs": named("collections", "OrderedDict") + b"]" + PAIRS + b"N\x86a\x85R0",
    "set of pairs": b"\x8f(" + PAIRS + b"\x900",
    "frozenset of pairs": b"(" + PAIRS + b"\x910",
    "keys that collide": b"}("
    + b"".join(literal(k * (2**61 - 1)) + b"N" for k in range(1, 20000))
    + b"u0",
    "lists within lists": b"]" * 30000 + b"a" * 29999 + b"0",
    "tuples within tuples": b")" + b"\x85" * 30000 + b"0",
}


@READERS
@FORMATS
@pytest.mark.parametrize("name", HARMLESS)
def test_what_would_cost_hours_costs_nothing(read, reader, zipped, name):
    payload = state(tensor(), before=HARMLESS[name])
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(read(reader, zipped, payload)["x"], [0, 1, 2, 3])
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_a_stream_lists_its_storages_by_name(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(
        stream(state(tensor()), []).removesuffix(pickle.dumps([], 2))
        + b"\x80\x02]"
        + PAIRS
        + b"a."
        + struct.pack("<q", 4)
        + DATA
    )
    with pytest.raises(TorchArchiveError, match=r"storage \(tuple, tuple\)"):
        torch_archive.read(path)


def test_shells_and_views_within_each_other_end(read):
    """Freed, searched or refused without the interpreter's own stack running out."""
    shells = named("no.such", "Class") + b"q\x01" + b")R" + b"q\x02"
    shells += b"".join(b"0h\x01)Rq\x03h\x02bq\x02" for _ in range(3 * 10**4))
    got = read(torch_modules, True, state(tensor(), before=shells + b"0"))
    np.testing.assert_array_equal(got["x"], [0, 1, 2, 3])

    call = named("torch._utils", "_rebuild_tensor_v2")
    views = b"Nq\x010" + call + b"q\x02" + b"0"
    views += b"".join(b"h\x02(h\x01h\x01h\x01h\x01tRq\x010" for _ in range(3 * 10**4))
    for reader in (torch_archive, torch_modules):
        with pytest.raises(TorchArchiveError, match="tensor 'x'"):
            read(reader, True, state(b"h\x01", before=views))


def test_mappings_nested_beyond_the_stack_are_an_error(read):
    nested = tensor()
    for _ in range(5000):
        nested = b"}" + text("a") + nested + b"s"
    with pytest.raises(TorchArchiveError, match="RecursionError"):
        read(torch_modules, True, state(nested))


def test_a_name_without_end_is_an_error(read):
    nested = tensor()
    for _ in range(20):
        nested = b"}" + text("a" * 100) + nested + b"s"
    with pytest.raises(TorchArchiveError, match=r"name of tensor 'x\.a.*1000 characters") as caught:
        read(torch_modules, True, state(nested))
    assert len(str(caught.value)) < 1000


@READERS
def test_copies_by_calls_are_counted(read, reader, monkeypatch):
    monkeypatch.setattr(unpickle, "_MOST_ENTRIES", 1000)
    pairs = b"](" + b"".join(text(f"{i:03}") + b"N\x86" for i in range(100)) + b"eq\x010"
    copy = named("collections", "OrderedDict") + b"h\x01\x85R0"
    assert list(read(reader, True, state(tensor(), before=pairs + 5 * copy))) == ["x"]
    with pytest.raises(TorchArchiveError, match="1000 entries"):
        read(reader, True, state(tensor(), before=pairs + 20 * copy))


@READERS
@FORMATS
@pytest.mark.parametrize("limit", ["_LARGEST_PICKLE", "_MOST_READS"])
def test_long_pickles_are_refused(read, reader, zipped, limit, monkeypatch):
    monkeypatch.setattr(unpickle, limit, 1000)
    assert list(read(reader, zipped, state(tensor()))) == ["x"]
    with pytest.raises(TorchArchiveError, match="save the tensors alone"):
        read(reader, zipped, state(tensor(), before=b"N0" * 1000))


@READERS
@FORMATS
@pytest.mark.parametrize("other", [{"size": 3}, {"kind": "IntStorage"}])
def test_a_storage_is_of_one_kind_and_size(read, reader, zipped, other):
    small = {"shape": (1,), "strides": (1,)}
    payload = state(tensor(**small), before=tensor(**small, **other) + b"0")
    with pytest.raises(TorchArchiveError, match="storage '0' has two"):
        read(reader, zipped, payload)


@READERS
@FORMATS
@pytest.mark.parametrize(
    "pid",
    [
        b"N",
        text("0"),
        b"](" + storage()[1:-1] + b"e",
        b")",
        storage()[:-1] + b"\x85",
        b"(" + text("storage") + b"N" + text("0") + text("cpu") + b"K\x04t",
        b"(" + text("storage") + text("torch.FloatStorage") + text("0") + text("cpu") + b"K\x04t",
        storage(size=-1)[:-1],
        storage(size=2**60)[:-1],
        storage(size=10**5000)[:-1],
        storage(size=True)[:-1],
        storage()[:-2] + b"K\x01t",
    ],
)
def test_only_storages_are_persistent(read, reader, zipped, pid):
    with pytest.raises(TorchArchiveError):
        read(reader, zipped, state(tensor(), before=pid + b"Q0"))


@READERS
def test_tensors_that_share_a_storage_are_few_or_small(tmp_path, reader):
    path = tmp_path / "a.pt"
    size = 10**5
    data = np.arange(size, dtype="<f4")

    def of(count):
        one = tensor(shape=(size,), size=size)
        body = b"".join(text(f"n{i}") + one for i in range(count))
        return archive(b"\x80\x02}(" + body + b"u.", [("0", data.tobytes())])

    path.write_bytes(of(12))
    assert all(np.array_equal(got, data) for got in reader.read(path).values())
    path.write_bytes(of(40))
    with pytest.raises(TorchArchiveError, match=r"'n\d\d' share storages"):
        reader.read(path)


@READERS
def test_storages_that_overlap_in_the_file_are_refused(reader, tmp_path):
    held = [torch_pickle.Storage(str(i), np.dtype(np.float32), 10) for i in range(4)]
    views = {f"n{h.key}": torch_pickle.Strided(h, 0, (10,), (1,)) for h in held}
    with pytest.raises(TorchArchiveError, match="160 bytes and the file 159"):
        torch_archive._materialise(views, lambda _: bytes(40), 159)
    assert len(torch_archive._materialise(views, lambda _: bytes(40), 160)) == 4


def test_two_members_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    raw = archive(state(tensor()), [("0", DATA), ("1", DATA)])
    path.write_bytes(raw)
    assert list(torch_archive.read(path)) == ["x"]
    path.write_bytes(raw.replace(b"archive/data/1", b"archive/data/0"))
    with pytest.raises(TorchArchiveError, match="one name"):
        torch_archive.read(path)


@pytest.mark.parametrize("stated", [0, 12, 20, 2**31, 2**32 - 2])
@pytest.mark.parametrize("field", ["compressed", "plain", "both"])
def test_a_member_of_another_size_is_refused(tmp_path, stated, field):
    """The directory at the end states sizes; readers take them from there."""
    raw = archive(state(tensor()))
    entry = raw.rindex(b"PK\x01\x02")  # that of data/0
    start, stop = {"compressed": (20, 24), "plain": (24, 28), "both": (20, 28)}[field]
    words = struct.pack("<I", stated) * ((stop - start) // 4)
    path = tmp_path / "a.pt"
    path.write_bytes(raw[: entry + start] + words + raw[entry + stop :])
    with pytest.raises(TorchArchiveError, match="data/0' should be 16 plain bytes"):
        torch_archive.read(path)


@pytest.mark.parametrize("member", ["data.pkl", "byteorder"])
@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_nothing_is_decompressed(tmp_path, member, how):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (
            ("byteorder", b"little"),
            ("data.pkl", state(tensor(), before=b"N0" * 10**5)),
            ("data/0", DATA),
        ):
            file.writestr(f"a/{name}", data, how if name == member else zipfile.ZIP_STORED)
    with pytest.raises(TorchArchiveError, match=f"{member}' should be"):
        torch_archive.read(path)


@READERS
def test_booleans_are_zero_or_one(tmp_path, reader):
    path = tmp_path / "a.pt"
    path.write_bytes(archive(state(tensor(kind="BoolStorage")), [("0", b"\x00\x01\x02\xff")]))
    got = reader.read(path)["x"]
    assert got.dtype == bool
    assert got.view(np.uint8).tolist() == [0, 1, 1, 1]


@READERS
def test_what_a_mapping_is_told_to_be_is_not_looked_at(read, reader):
    """A state dict's own attributes are dropped, those that would hide its methods too."""
    mapping = named("collections", "OrderedDict") + b")R" + text("x") + tensor() + b"s"
    hide = dict.fromkeys(("items", "get", "keys", "__iter__", "__class__"), 1)
    whole = b"\x80\x02" + mapping + literal(hide) + b"b."
    np.testing.assert_array_equal(read(reader, True, whole)["x"], [0, 1, 2, 3])


@READERS
def test_an_ordered_mapping_of_pairs(read, reader):
    """As Python 2 wrote them."""
    pairs = b"](]" + b"(" + text("x") + tensor() + b"eN0e"
    whole = b"\x80\x02" + named("collections", "OrderedDict") + pairs + b"\x85R."
    np.testing.assert_array_equal(read(reader, True, whole)["x"], [0, 1, 2, 3])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_writes_is_still_read(tmp_path, protocol, zipped):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    states = module.state_dict()
    path = tmp_path / "a.pt"

    def save(content):
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)

    save(states)
    for reader in (torch_archive, torch_modules):
        got = reader.read(path)
        assert list(got) == list(states)
        for name, value in states.items():
            np.testing.assert_array_equal(got[name], value.numpy(), err_msg=name)
    rest = {
        "epoch": 10**30,
        "sets": ({1, 2}, frozenset("ab"), bytearray(b"ab"), b"c", 1.5, True),
        "keys": {(1, (2, 3)): 1, 4: 5, None: 6, b"a": 7},
        "state": OrderedDict({"deep": {"w": torch.ones(2)}}),
        "optimizer": optimizer,
        "args": np.float64(3.0),
    }
    save({"model": module, **rest})
    got = torch_modules.read(path)
    for name, value in states.items():
        np.testing.assert_array_equal(got[f"model.{name}"], value.numpy(), err_msg=name)
    np.testing.assert_array_equal(got["state.deep.w"], [1, 1])
