"""The README does what it says: its Python runs, its marked commands run, CI can read it.

```python blocks share one namespace, top to bottom. A ```bash block runs when the line before it is
``<!-- ci:run -->``; ``<!-- ci:skip -->`` leaves a Python block out. Everything runs in a temporary
folder, so that what it writes stays out of the checkout.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
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


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the ``ci:`` word before it, its first line's number."""

    language: str
    mark: str | None
    line: int
    code: str


def blocks(text: str) -> list[Block]:
    pattern = re.compile(
        r"^(?:<!-- ci:(?P<mark>\w+) -->\n+)?^```(?P<language>\w+)\n(?P<code>.*?)^```$",
        re.MULTILINE | re.DOTALL,
    )
    return [
        Block(
            language=m["language"],
            mark=m["mark"],
            line=text[: m.start("code")].count("\n") + 1,
            code=m["code"],
        )
        for m in pattern.finditer(text)
    ]


def run_python(text: str, name: str) -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(text):
        if block.language == "python" and block.mark != "skip":
            padded = "\n" * (block.line - 1) + block.code  # tracebacks then show the file's lines
            exec(compile(padded, name, "exec"), namespace)
    return namespace


def run_bash(text: str, cwd: Path) -> list[str]:
    ran = []
    for block in blocks(text):
        if block.language == "bash" and block.mark == "run":
            result = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.code],
                cwd=cwd,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            assert result.returncode == 0, f"{block.code}\n{result.stdout}\n{result.stderr}"
            ran.append(block.code)
    return ran


def environment() -> Mapping[str, str]:
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }


def ci_command(name: str, readme: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EXTRACTOR, name, readme], capture_output=True, text=True, timeout=60, check=False
    )


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8")
    assert any(b.language == "python" for b in blocks(text))
    run_python(text, "README.md")


@pytest.mark.slow
def test_marked_commands_run(tmp_path: Path) -> None:
    run_bash(README.read_text(encoding="utf-8"), tmp_path)


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


def test_blocks_carry_language_mark_and_line() -> None:
    found = [(b.language, b.mark, b.line) for b in blocks(SAMPLE)]
    lines = SAMPLE.splitlines()
    assert [(language, mark) for language, mark, _ in found] == [
        ("bash", "test"),
        ("bash", None),
        ("bash", "run"),
        ("python", None),
        ("python", None),
        ("python", "skip"),
    ]
    assert [lines[n - 1] for _, _, n in found] == [
        "git clone https://example.org/me/sample && cd sample",
        "exit 1",
        'echo "seen" > written.txt',
        "x = 20",
        "y = x + 1",
        "raise RuntimeError",
    ]


def test_only_marked_commands_run(tmp_path: Path) -> None:
    assert len(run_bash(SAMPLE, tmp_path)) == 1
    assert (tmp_path / "written.txt").read_text() == "seen\n"


def test_a_failing_command_is_told() -> None:
    text = "<!-- ci:run -->\n```bash\nfalse | true\necho unreached\n```\n"
    with pytest.raises(AssertionError, match="false"):
        run_bash(text, ROOT)


def test_python_shares_a_namespace() -> None:
    assert run_python(SAMPLE, "SAMPLE.md")["y"] == 21


def test_a_failing_example_is_told_with_its_line() -> None:
    with pytest.raises(ZeroDivisionError) as error:
        run_python("# Title\n\n```python\n1 / 0\n```\n", "SAMPLE.md")
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
