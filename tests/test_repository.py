"""What no file of the repository may hold, and what every public name must have."""

import ast
import inspect
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import linearize

ROOT = Path(__file__).parents[1]

# Written in pieces, so that this file does not hold what it looks for.
REGISTRY_HOSTS = (
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "registry.npmjs" + ".org",
    "deb.debian" + ".org",
    "registry.yarnpkg" + ".com",
)
MACHINE_PATHS = tuple(
    "/" + p for p in ("work/", "root/", "home/", "Users/", "opt/wheels", "tmp/", "mnt/")
)


def repository_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if (ROOT / ".git").exists() and listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # an unpacked archive
        skip = re.compile(
            r"\.venv|__pycache__|_cache$|\.egg-info$|^\.hypothesis$|^runs$|^build$|^dist$"
        )
        paths = []
        for folder, folders, names in os.walk(ROOT):
            folders[:] = [d for d in folders if not skip.search(d)]
            paths += [Path(folder, name) for name in names]
    return [p for p in paths if p.is_file()]


def tables(text: str) -> list[list[str]]:
    """Runs of lines that begin with a bar, outside of code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"(?:^\|.*(?:\n|$))+", text, re.MULTILINE)
    return [block.splitlines() for block in blocks]


def test_tables_of_pages_are_whole() -> None:
    broken = []
    for path in repository_files():
        if path.suffix != ".md":
            continue
        for head, *rest in tables(path.read_text("utf-8")):
            columns = {len(re.findall(r"(?<!\\)\|", line)) for line in (head, *rest)}
            if not rest or not re.fullmatch(r"\|(:?-+:?\|)+", rest[0].replace(" ", "")):
                broken.append(f"{path.relative_to(ROOT)}: no rule below {head[:60]!r}")
            elif len(columns) > 1:
                broken.append(f"{path.relative_to(ROOT)}: rows of {columns} bars, {head[:60]!r}")
    assert broken == []


def test_figures_of_pages_have_words() -> None:
    bare = []
    for path in repository_files():
        if path.suffix == ".md":
            for alt, source in re.findall(r"!\[(.*?)\]\(([^)]*)\)", path.read_text("utf-8")):
                if len(alt.split()) < 4:
                    bare.append(f"{path.relative_to(ROOT)}: {source}")
    assert bare == []


def text_lines() -> Iterator[tuple[str, str]]:
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def library_sources() -> list[Path]:
    return sorted((ROOT / "linearize").rglob("*.py"))


def test_there_is_something_to_look_at() -> None:
    names = {str(p.relative_to(ROOT)) for p in repository_files()}
    assert {"pyproject.toml", "LICENSE", "tests/test_repository.py", ".ci/run"} <= names


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_no_file_names_a_registry_host(host: str) -> None:
    assert [place for place, line in text_lines() if host in line] == []


def test_no_file_holds_a_path_of_a_developer_machine() -> None:
    start = re.compile(
        r"(?<![\w./~$}>)-])(?:" + "|".join(re.escape(p) for p in MACHINE_PATHS) + ")"
    )
    assert [place for place, line in text_lines() if start.search(line)] == []


def test_every_public_name_has_a_docstring() -> None:
    public = [n for n in vars(linearize) if not n.startswith("_")]
    callables = {n: getattr(linearize, n) for n in public if callable(getattr(linearize, n))}
    modules = {n: getattr(linearize, n) for n in public if inspect.ismodule(getattr(linearize, n))}
    bare = [n for n, x in {**callables, **modules}.items() if not inspect.getdoc(x)]
    assert bare == []


@pytest.mark.parametrize("path", library_sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_classes_and_functions_are_documented(path: Path) -> None:
    module = ast.parse(path.read_text(encoding="utf-8"))
    bare = [
        node.name
        for node in module.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert ast.get_docstring(module), "the module has no docstring"
    assert bare == []


def unsafe_loads(source: str) -> list[str]:
    """Calls that execute what they read, as ``line: call``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        unsafe = (
            called
            in ("pickle.load", "pickle.loads", "joblib.load", "dill.load", "cloudpickle.load")
            or keywords.get("allow_pickle", "False") != "False"
            or (called.endswith("torch.load") and keywords.get("weights_only") != "True")
            or called in ("eval", "exec", "os.system")
        )
        if unsafe:
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", library_sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_executes_nothing_that_it_reads(path: Path) -> None:
    assert unsafe_loads(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "call",
    [
        "pickle.load(f)",
        "np.load(p, allow_pickle=True)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "eval(text)",
    ],
)
def test_an_unsafe_load_is_found(call: str) -> None:
    assert len(unsafe_loads(call)) == 1


@pytest.mark.parametrize(
    "call", ["np.load(p)", "np.load(p, allow_pickle=False)", "torch.load(p, weights_only=True)"]
)
def test_a_safe_load_is_not(call: str) -> None:
    assert unsafe_loads(call) == []
