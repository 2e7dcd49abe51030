"""``.. offers:: package``: all that a package offers, each thing described once, from docstrings.

A package offers what its ``__init__`` imports under its own name (``from a import b as b``) and
defines; a module likewise. What two offer is described where its name is shortest, and
named by the other. In docstrings roles may say a name as the code there would; one that names
nothing is warned of, and what is not offered stays a word.
"""

import ast
import importlib
import inspect
import pkgutil
import pydoc
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger

ROOT = "linearize"
ALSO = ("linearize.hosts", "linearize.types")
"""Offered by no ``__init__``, and yet words of every signature."""
NOT = re.compile(r"linearize\.report\.")
"""Inner parts of pages."""

KINDS = ("function", "class", "data", "exception")
"""In the order of pages."""

log = getLogger(__name__)


@dataclass(frozen=True)
class Offer:
    """A name of a package, and what it stands for."""

    package: str
    name: str
    written: str
    """Module and name where it is written, or imported from."""

    @property
    def path(self) -> str:
        """As a user says it."""
        return f"{self.package}.{self.name}"

    @property
    def value(self) -> Any:
        """What it stands for."""
        return getattr(importlib.import_module(self.package), self.name)

    @property
    def kind(self) -> str:
        """The Python domain's word for it; another name of a class (of ``Any``, say) is data."""
        if getattr(self.value, "__name__", None) != self.name:
            return "data"
        if inspect.isclass(self.value):
            return "exception" if issubclass(self.value, BaseException) else "class"
        return "function" if inspect.isroutine(self.value) else "data"

    @property
    def origin(self) -> str:
        """Where it is written."""
        if self.kind == "data":
            return self.written
        return f"{self.value.__module__}.{self.value.__qualname__}"


def offers(package: str) -> Iterator[Offer]:
    """What a package offers, modules left out, in the order of its source."""
    module = importlib.import_module(package)
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                name = each.asname or "_"
                if name[0] != "_" and not isinstance(getattr(module, name), ModuleType):
                    yield Offer(package, name, f"{node.module}.{each.name}")
    documented = {name for _, name in ModuleAnalyzer.for_module(package).find_attr_docs()}
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == package and callable(value)
        if not name.startswith("_") and (own or name in documented):
            yield Offer(package, name, f"{package}.{name}")


@cache
def packages() -> tuple[str, ...]:
    """All that offer something, those of the shortest names first."""
    found = {ROOT, *ALSO}
    root = importlib.import_module(ROOT)
    for each in pkgutil.walk_packages(root.__path__, f"{ROOT}."):
        if each.ispkg and not NOT.match(each.name):
            found.add(each.name)
    for package in tuple(found):
        module = importlib.import_module(package)
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ImportFrom) and node.module and hasattr(module, "__path__"):
                paths = (f"{node.module}.{n.name}" for n in node.names if n.asname)
                found |= {p for p in paths if isinstance(_module(p), ModuleType)}
    return tuple(sorted(found, key=lambda name: (name.count("."), name)))


def _module(path: str) -> Any:
    package, _, name = path.rpartition(".")
    return getattr(importlib.import_module(package), name)


@cache
def homes() -> dict[str, str]:
    """Where a thing is described, by every name that it has."""
    by_origin: dict[str, str] = {}
    found: dict[str, str] = {}
    for package in packages():
        for each in offers(package):
            home = by_origin.setdefault(each.origin, each.path)
            found |= {each.path: home, each.origin: home}
    return found


class Offers(SphinxDirective):
    """The directive."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """First what is described here, then what is described elsewhere."""
        package = self.arguments[0]
        self.env.domaindata.setdefault("offers", set()).add(package)
        self.env.note_dependency(__file__)
        every = sorted(offers(package), key=lambda each: KINDS.index(each.kind))
        here = [each for each in every if homes()[each.origin] == each.path]
        elsewhere = [each for each in every if each not in here]
        text = [
            f".. py:module:: {package}",
            "",
            _first_paragraph(inspect.getdoc(importlib.import_module(package)) or ""),
            "",
        ]
        if elsewhere:
            also = ", ".join(f":py:obj:`{e.name} <{homes()[e.origin]}>`" for e in elsewhere)
            text += [f"Also here: {also}.", ""]
        for each in here:
            text += _described(each)
        return self.parse_text_to_nodes(_qualified("\n".join(text), package))


def _first_paragraph(docstring: str) -> str:
    return docstring.partition("\n\n")[0].replace("\n", " ")


OPTIONS = {"function": "", "class": "   :members:", "exception": "   :show-inheritance:"}


def _described(offer: Offer) -> list[str]:
    if offer.kind in OPTIONS:
        return [f".. auto{offer.kind}:: {offer.path}", OPTIONS[offer.kind], ""]
    module, _, name = offer.written.rpartition(".")
    docs = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name), [""])
    head = [f".. py:data:: {offer.name}", f"   :module: {offer.package}", ""]
    return [*head, *textwrap.indent("\n".join(docs), "   ").splitlines(), ""]


ROLE = re.compile(r":(func|class|meth|data|mod|attr|exc):`(~?)([\w.]+)`")


def _qualified(text: str, *scopes: str) -> str:
    """Roles with the whole names of what they mean, as seen from modules or classes."""

    def whole(match: re.Match[str]) -> str:
        role, short, said = match.groups()
        for path in (said, *(f"{scope}.{said}" for scope in scopes)):
            if (home := _home(path)) is not None:
                shown = said.rpartition(".")[2] if short else said
                call = "()" if role in ("func", "meth") else ""
                return f":py:{role}:`{shown}{call} <{home}>`"
        return match[0]

    return ROLE.sub(whole, text)


def _home(path: str) -> str | None:
    """The whole name of what a path leads to, or None where that is nothing."""
    head, tail = path, ""
    while head:
        home = homes().get(head)
        if home is not None and (not tail or _has(_module(home), tail[1:])):
            return home + tail
        head, _, last = head.rpartition(".")
        tail = f".{last}{tail}"
    return path if _exists(path) else None


def _exists(path: str) -> bool:
    owner, _, name = path.rpartition(".")
    return pydoc.locate(path) is not None or _has(pydoc.locate(owner), name)


def _has(owner: Any, name: str) -> bool:
    """A field without a default is no attribute."""
    return hasattr(owner, name) or name in getattr(owner, "__annotations__", {})


def qualify(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A docstring's roles, as seen from where it is written."""
    owner = obj if what in ("class", "exception", "function") else _module(name.rpartition(".")[0])
    module, inner = owner.__module__, f"{owner.__module__}.{owner.__qualname__}"
    lines[:] = _qualified("\n".join(lines), inner, module).split("\n")


def defaults(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """A field whose default is a function is no method."""
    return True if inspect.isfunction(obj) and what == "class" and obj.__name__ != name else None


def written(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str | None] | None:
    """A signature with its types as the source says them: ``params0: Params``, not ``Any``."""
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(obj)))).body[0]
    except (OSError, TypeError, SyntaxError):
        return None
    if isinstance(node, ast.ClassDef):
        own = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not own:
            return _of_fields(obj) if is_dataclass(obj) else None
        node = own[0]
    if not isinstance(node, ast.FunctionDef):
        return None
    if what != "function" and node.args.args and node.args.args[0].arg in ("self", "cls"):
        del node.args.args[0]
    types = _Types(vars(inspect.getmodule(obj)))
    for each in ast.walk(node.args):
        if isinstance(each, ast.arg) and each.annotation:
            each.annotation = types.visit(each.annotation)
    result = None if node.name == "__init__" else node.returns
    return f"({ast.unparse(node.args)})", result and ast.unparse(types.visit(result))


class _Types(ast.NodeTransformer):
    """Gives types of a module their whole names, which the page shows by their last parts."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.scope = scope

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if not isinstance(node.value, str):
            return node
        return self.visit(ast.parse(node.value, mode="eval").body)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        literal = isinstance(node.value, ast.Name) and node.value.id == "Literal"
        return node if literal else self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        value = self.scope.get(node.id)
        path = f"{value.__module__}.{value.__qualname__}" if inspect.isclass(value) else ""
        home = homes().get(path) or homes().get(f"linearize.types.{node.id}")
        return ast.Name(home) if home else node


def _of_fields(cls: Any) -> tuple[str, None]:
    """Names and plain defaults; the types stand beside the fields below."""
    shown = []
    for each in inspect.signature(cls).parameters.values():
        plain = each.default is each.empty or isinstance(each.default, int | float | str | None)
        shown.append(
            str(each.replace(annotation=each.empty, default=each.default if plain else ...))
        )
    return f"({', '.join(shown).replace('Ellipsis', '...')})", None


def plain(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, word: nodes.TextElement
) -> nodes.Node | None:
    """What exists and is described nowhere stays a word; so does any word of a signature."""
    if node.get("refdomain") != "py":
        return None
    return word if not node.get("refwarn") or _exists(node["reftarget"]) else None


def whole(app: Sphinx, env: BuildEnvironment) -> None:
    """Every package that offers something has its place on a page."""
    for package in sorted(set(packages()) - env.domaindata.get("offers", set())):
        log.warning("no page describes %s: give it '.. offers:: %s'", package, package)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx asks for it."""
    app.setup_extension("sphinx.ext.autodoc")
    for name in ("attr", "class", "data", "exc", "func", "meth", "mod", "obj"):
        app.registry.domains["py"].roles[name].warn_dangling = True
    app.add_directive("offers", Offers)
    app.connect("autodoc-process-docstring", qualify, priority=400)
    app.connect("autodoc-skip-member", defaults)
    app.connect("autodoc-process-signature", written)
    app.connect("missing-reference", plain)
    app.connect("env-check-consistency", whole)
    return {"parallel_read_safe": False}
