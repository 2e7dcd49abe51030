"""The README and the site's pages do what they say: their Python runs, marked commands run.

```python blocks share one namespace, top to bottom. A ```bash block runs when the line before it is
``<!-- ci:run -->``; ``<!-- ci:skip -->`` leaves a Python block out. All run in a temporary folder,
so that what they write stays out of the checkout, beside a small model and images.
"""

import inspect
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import pytest
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.codeblock import AbstractCodeBlockParser
from sybil.parsers.abstract.lexers import BlockLexer

import linearize as lz
from linearize.train import TrainConfig

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
CATALOGUES = {DOCS / f"{name}.md" for name in ("data", "models", "scorers", "large_vectors")}
"""Their lines are of weights and files that the reader has; tests of their own run the last's."""
PAGES = sorted(
    path
    for path in (*DOCS.glob("*.md"), *DOCS.glob("how-to/*.md"))
    if path not in CATALOGUES and "```python\n" in path.read_text("utf-8")
)
EXTRACTOR = ROOT / ".ci" / "readme-command"

SAMPLE = """\
# Sample

<!-- ci:test -->
```bash
git clone https://example.org/me/sample && cd sample
echo install && echo test
```

```bash
exit 1
```

<!-- ci:run -->
```bash
echo "seen" > written.txt
python -c "import linearize"
```

```python
x = 20
```

Text, then

```python
y = x + 1
assert y == 21
```

<!-- ci:skip -->
```python
raise RuntimeError
```
"""


def run_bash(example: Example) -> None:
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", str(example.parsed)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, f"{example.parsed}\n{result.stdout}\n{result.stderr}"


def parser(before: str, language: str, run: Callable[[Example], None]) -> AbstractCodeBlockParser:
    fence = re.compile(rf"{before}^```(?P<arguments>{language})\n", re.MULTILINE)
    return AbstractCodeBlockParser([BlockLexer(fence, r"(?<=\n)```(?=\n|$)")], language, run)


PYTHON = parser(r"(?<!<!-- ci:skip -->\n)", "python", PythonEvaluator())
BASH = parser(r"^<!-- ci:run -->\n+", "bash", run_bash)


def run(path: Path, kind: AbstractCodeBlockParser) -> Document:
    """All blocks of a kind, in order; what Python leaves is the document's namespace."""
    document = Document.parse(str(path), kind)
    for example in document:
        example.evaluate()
    return document


def environment() -> Mapping[str, str]:
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }


def ci_command(name: str, readme: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EXTRACTOR, name, readme], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    steps = list(inspect.signature(TrainConfig).parameters).index("steps")
    defaults = list(TrainConfig.__init__.__defaults__ or ())
    defaults[steps] = 100  # in place of 2,000, which ``.ci/run`` takes
    monkeypatch.setattr(TrainConfig.__init__, "__defaults__", tuple(defaults))
    assert TrainConfig().steps == 100
    runpy.run_path(str(ROOT / ".ci" / "own-files.py"))
    assert run(README, PYTHON).regions
    assert Path("runs/photos/results.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_python_blocks_of_the_site_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(lz.METHODS), mock.patch.dict(lz.MERGES):
        assert run(page, PYTHON).regions


@pytest.mark.slow
def test_marked_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(README, BASH).regions


def test_ci_reads_the_test_command() -> None:
    result = ci_command("test", README)
    assert result.returncode == 0, result.stderr
    assert "git clone" not in result.stdout
    assert ".venv" in result.stdout
    assert "pytest" in result.stdout


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "SAMPLE.md"
    path.write_text(SAMPLE)
    return path


def test_only_marked_commands_run(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sample.parent)
    assert len(run(sample, BASH).regions) == 1
    assert Path("written.txt").read_text() == "seen\n"


def test_a_failing_command_is_told(sample: Path) -> None:
    sample.write_text("<!-- ci:run -->\n```bash\nfalse | true\necho unreached\n```\n")
    with pytest.raises(AssertionError, match="false"):
        run(sample, BASH)


def test_python_shares_a_namespace(sample: Path) -> None:
    assert run(sample, PYTHON).namespace["y"] == 21


def test_a_failing_example_is_told_with_its_line(sample: Path) -> None:
    sample.write_text("# Title\n\n```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as error:
        run(sample, PYTHON)
    assert error.traceback[-1].lineno + 1 == 4


def test_extractor_leaves_the_clone_out(sample: Path) -> None:
    assert ci_command("test", sample).stdout == "echo install && echo test\n"


@pytest.mark.parametrize(
    "clone",
    [
        "git clone https://example.org/x && cd x && \\\n",
        "git clone https://example.org/x && cd x &&\n",
        "git clone https://example.org/x && cd x && ",
        "git clone --depth 1 https://example.org/x && cd x\n",
        "",
    ],
)
def test_extractor_knows_the_ways_to_write_a_clone(tmp_path: Path, clone: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"<!-- ci:test -->\n```bash\n{clone}a &&\n  b\n```\n")
    assert ci_command("test", readme).stdout == "a &&\n  b\n"


def test_extractor_refuses_a_readme_without_the_mark(sample: Path) -> None:
    result = ci_command("absent", sample)
    assert result.returncode == 1
    assert "ci:absent" in result.stderr
