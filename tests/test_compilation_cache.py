"""Where compiled programs are kept between a command's runs, and where they are not."""

import os
import subprocess
import sys

import jax
import pytest

from linearize import cli, compilation_cache

PROGRAM = """\
import sys
import jax
from linearize import cli
from linearize.compiled import jit

def build():
    return None

def count(event, **_):
    hits.append(event.endswith("/cache_hits"))

def run(command):
    jax.monitoring.register_event_listener(count)
    print(jit(lambda x: x * 2)(3.0), sum(hits))

hits = []
cli.parse = lambda *_: cli.Command("a", None, ".", keep_compiled="off" not in sys.argv)
cli.launch("toy", {"a": build}, run)
"""


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv(compilation_cache.VARIABLE)
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path))
    return tmp_path / "compiled" / compilation_cache.processor()


@pytest.mark.slow
def test_the_second_run_of_a_command_reads_what_the_first_compiled(elsewhere):
    def said(*words):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert said("off") == ["6.0", "0"]
    assert not elsewhere.exists()
    value, hits = said()
    assert (value, hits) == ("6.0", "0")
    assert list(elsewhere.glob("*-cache"))
    value, hits = said()
    assert value == "6.0"
    assert int(hits) > 0


def test_what_the_user_says_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    assert compilation_cache.keep() is None  # the tests' own variable, perhaps empty
    assert jax.config.jax_compilation_cache_dir == before
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_written_is_no_error(elsewhere):
    elsewhere.parent.write_text("a file in its place")
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert compilation_cache.keep() is None
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_the_flag_is_taken_out_and_kept_for_the_plan():
    assert cli.split_cache(["a", "--no-compilation-cache"]) == (False, ["a"])
    assert cli.split_cache(["a", "b"]) == (True, ["a", "b"])
