"""The tangent view whose terms are kept between runs, by the content of all that decides them.

The terms f0 and Jτ of a data set cost 1 + 2T passes, and every analysis of the same vectors asks
for the same ones: they are kept in the cache directory, by the identity of f and the content of
weights, vectors and inputs.
"""

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from linearize import assets, hosts, identity, io, tree
from linearize.evaluate.affine import AffineOutputs, affine_outputs
from linearize.evaluate.view import Tangent
from linearize.examples import Examples, as_arguments

log = logging.getLogger(__name__)

_BATCH = 100
"""Examples a pass of 1 + 2T passes' work holds at most."""


class KeptTangent(Tangent):
    """:class:`~linearize.evaluate.view.Tangent` whose terms are read from the cache directory."""

    def _passed(self, examples: Examples) -> AffineOutputs:
        path = terms_path(self._decided_by(examples), as_arguments(examples.inputs))
        found = read_terms(path)
        missing = hosts.largest(found is None)  # each process may have a cache of its own
        if found is None or missing:
            log.info("terms of %d examples along %s", len(examples), ", ".join(self.vectors))
            # no example is spent on padding
            even = -(-len(examples) // -(-len(examples) // min(self.batch_size, _BATCH)))
            taus = list(self.vectors.values())
            found = affine_outputs(self.f, self.params0, taus, examples.inputs, even)
            io.save_tree(path, {"f0": found.f0, "jvps": found.jvps})
        return found

    def _decided_by(self, examples: Examples) -> tuple[str, ...]:
        f = identity.of(self.f, self.params0, *examples.alone, derivative=True)
        return f, *self._fingerprints

    @cached_property
    def _fingerprints(self) -> tuple[str, ...]:
        return tuple(tree.fingerprint(part) for part in (self.params0, *self.vectors.values()))


def terms_path(decided_by: Sequence[str], inputs: Sequence[np.ndarray]) -> Path:
    """Where terms are kept; the name says everything that decides them.

    Args:
        decided_by: the identity of f, the fingerprints of θ0 and of the task vectors.
        inputs: the model's arguments, (N, ...) each.
    """
    shapes = (str(np.shape(leaf)) for leaf in jax.tree.leaves(inputs))
    digest = hashlib.sha256("\n".join((*decided_by, *shapes)).encode())
    for leaf in jax.tree.leaves(inputs):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return assets.cache_dir() / "terms" / f"{digest.hexdigest()[:32]}.safetensors"


def read_terms(path: Path) -> AffineOutputs | None:
    """Terms that were kept; None where there are none, or the file is damaged."""
    try:
        arrays, _ = io.load_tree(path)
        return AffineOutputs(arrays["f0"], arrays["jvps"])
    except FileNotFoundError:
        return None
    except (io.CorruptFileError, KeyError) as error:
        log.warning("computed again: %s", error)
        return None
