"""An unpickler that runs nothing: what a pickle describes becomes records and shells.

A pickle is a program. Here it may name few words, fill only its own lists and mappings, and ask for
work and memory in proportion to its length; all else ends the reading. Which words these are, and
what becomes of them, is said by those who read: :mod:`linearize.models.torch_pickle`,
:mod:`linearize.assets.unpickle`.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, ClassVar, NamedTuple, NoReturn

_LARGEST_PICKLE = 2**28
"""Bytes. Names and shapes need some hundred a tensor."""
_MOST_READS = 2**25
"""One or two for each object, which may take a hundred bytes of memory."""
_LONGEST_LINE = 2**20
_MOST_ENTRIES = 2**24
"""Of all calls' arguments together: a call may copy a list that the pickle holds but once."""
_OPCODES = """
    PROTO STOP MARK POP POP_MARK DUP BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_LIST LIST EMPTY_DICT GLOBAL STACK_GLOBAL INST OBJ BINPERSID
"""
"""Opcodes that do here what they do in any pickle. Protocol 0, without PUT and GET, cannot name
torch's storages."""


class PickleError(ValueError):
    """A pickle that is damaged, or wants more than it may have; nothing of it was run."""


class Word(NamedTuple):
    """What a name in a pickle stands for.

    Attributes:
        name: with its module.
        call: what becomes of a call.
    """

    name: str
    call: Callable[..., Any]


class Shell:
    """Stands for an object of a class that is not looked for: it keeps its state and does nothing.

    Attributes:
        name: of the class.
        state: what the pickle put into it: a mapping of attributes, as a rule.
    """

    __slots__ = ("name", "state")

    def __init__(self, name: str) -> None:
        """Without a state."""
        self.name = name
        self.state: Any = None


class _Bounded:
    """A file of which a pickle gets whole reads of bounded size, or an error."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = _LARGEST_PICKLE
        self._reads = 0

    def read(self, size: int) -> bytes:
        self._spend(size)
        data = self._file.read(size)
        if len(data) != size:
            raise EOFError("the pickle is cut short")
        return data

    def readline(self) -> bytes:
        line = self._file.readline(_LONGEST_LINE)
        self._spend(len(line))
        if not line.endswith(b"\n"):
            raise EOFError("a line of the pickle is cut short or too long")
        return line

    def _spend(self, size: int) -> None:
        self._left -= size
        self._reads += 1
        if self._left < 0 or self._reads > _MOST_READS:
            raise PickleError(
                f"its pickle is damaged, or larger than {_LARGEST_PICKLE} bytes and "
                f"{_MOST_READS} reads; save the tensors alone"
            )


def _fill(target: Any, flat: list[Any]) -> None:
    """Keys and values in turn. Keys other than names are of no use and never hashed: that may take
    hours for tuples of tuples, or for integers chosen to collide.
    """
    if type(target) not in (dict, OrderedDict, Shell):
        _refuse_change(target)
    if type(target) is Shell:
        return
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        target[key if type(key) is str else Shell(type(key).__name__)] = value


def _ordered(pairs: Iterable[tuple[Any, Any]] = ()) -> OrderedDict[Any, Any]:
    made: OrderedDict[Any, Any] = OrderedDict()
    _fill(made, [part for key, value in pairs for part in (key, value)])
    return made


def words(*known: Word) -> dict[str, Word]:
    """The words by their names."""
    return {word.name: word for word in known}


def not_called(*_: Any) -> NoReturn:
    """What becomes of a call of a class that is named and never made."""
    raise PickleError("its pickle calls a class that is only named; nothing was run")


ORDERED = Word("collections.OrderedDict", _ordered)


class _Table(dict[int, Callable[[Any], None]]):
    """What is done for each opcode; others end the reading."""

    def __missing__(self, code: int) -> NoReturn:
        raise PickleError(
            f"its pickle is damaged, or hostile: opcode {bytes([code])!r} is in no torch file; "
            "nothing was run"
        )


def _table(**opcodes: Callable[[Any], None]) -> _Table:
    known = {name: _usual(name) for name in _OPCODES.split()}
    return _Table({getattr(pickle, name)[0]: do for name, do in (known | opcodes).items()})


def _usual(name: str) -> Callable[[Any], None]:
    return pickle._Unpickler.dispatch[getattr(pickle, name)[0]]


# the unpickler in C has no place where BUILD and calls can be narrowed, reserves gigabytes for a
# memo of one high index, and fetches from the process's registry of extensions
class Unpickler(pickle._Unpickler):
    """Builds records of what the pickle describes; calls nothing that the pickle brings along."""

    known: ClassVar[Mapping[str, Word]] = {}
    """The words that it may name."""
    otherwise: ClassVar[str] = "which is not admitted; nothing was run"
    """What is said of another one."""
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: IO[bytes]) -> None:
        """Reads one pickle of the file."""
        super().__init__(_Bounded(file))
        self._entries = 0

    def find_class(self, module: str, name: str) -> Word:
        """The word; PickleError if it is not among the few that are known."""
        full = f"{module}.{name}"
        if full not in self.known:
            raise PickleError(f"its pickle names {said(full)}, {self.otherwise}")
        return self.known[full]

    def _made(self, word: Any, args: Any) -> Any:
        if type(word) is not Word or type(args) is not tuple:
            raise PickleError(f"its pickle calls a {kind(word)}; nothing was run")
        held = (len(a) for a in args if isinstance(a, tuple | list | dict))
        self._entries += len(args) + sum(held)
        if self._entries > _MOST_ENTRIES:
            raise PickleError(f"its pickle's calls take more than {_MOST_ENTRIES} entries")
        return word.call(*args)

    def _instantiate(self, klass: Any, args: list[Any]) -> None:
        # INST and OBJ end here
        self.append(self._made(klass, tuple(args)))

    def _load_reduce(self) -> None:
        args, word = self.stack.pop(), self.stack.pop()
        self.append(self._made(word, args))

    def _load_newobj_ex(self) -> None:
        self.stack.pop()  # keywords
        self._load_reduce()

    def _load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is Shell:
            target.state = state
        elif type(target) is not OrderedDict:  # a state dict's has versions of its modules
            _refuse_change(target)

    def _load_frame(self) -> None:
        self.read(8)  # a frame only says how much to read ahead

    def _load_append(self) -> None:
        self._extend([self.stack.pop()])

    def _load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is not Shell:
            _refuse_change(target)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _fill(self.stack[-1], [key, value])

    def _load_setitems(self) -> None:
        flat = self.pop_mark()
        _fill(self.stack[-1], flat)

    def _load_dict(self) -> None:
        flat = self.pop_mark()
        self.append({})
        _fill(self.stack[-1], flat)

    dispatch: ClassVar[_Table] = _table(
        FRAME=_load_frame,
        REDUCE=_load_reduce,
        NEWOBJ=_load_reduce,
        NEWOBJ_EX=_load_newobj_ex,
        BUILD=_load_build,
        APPEND=_load_append,
        APPENDS=_load_appends,
        SETITEM=_load_setitem,
        SETITEMS=_load_setitems,
        DICT=_load_dict,
        # sets hold no named tensors, and their items need no hash
        EMPTY_SET=_usual("EMPTY_LIST"),
        ADDITEMS=_load_appends,
        FROZENSET=_usual("TUPLE"),
        BYTEARRAY8=_usual("BINBYTES8"),
    )


def _refuse_change(target: Any) -> NoReturn:
    raise PickleError(
        f"its pickle changes a {kind(target)} after it was made, which no torch file does; "
        "nothing was run"
    )


def kind(value: Any) -> str:
    """What a value is, by its class's name."""
    return value.name if isinstance(value, Word | Shell) else type(value).__name__


def said(*values: Any) -> str:
    """Values in few characters: a hostile one may have no end, or none that memory holds."""

    def one(value: Any) -> str:
        if type(value) is str:
            return repr(value[:200])
        if value is None or (type(value) is int and abs(value) < 2**64):
            return str(value)
        return kind(value)[:200]

    return ", ".join(
        f"({', '.join(map(one, v[:8]))}{', ...' if len(v) > 8 else ''})"
        if type(v) is tuple
        else one(v)
        for v in values
    )
