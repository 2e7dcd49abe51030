"""The former place of :mod:`linearize.compiled`."""

from linearize.compiled import compiler_options as compiler_options
from linearize.compiled import jit as jit
