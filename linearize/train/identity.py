"""Which question a run answers: the identity of its functions and of its data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from linearize import identity, tree
from linearize.current import current
from linearize.examples import fingerprint
from linearize.train import feed
from linearize.train.penalty import Term
from linearize.train.step import REGIMES, Callables
from linearize.types import Params, PyTree


def functions(
    given: Mapping[str, Callable | None],
    params0: Params,
    batch: PyTree,
    *,
    regime: str,
    trainable: Sequence[str],
    inputs: Sequence[str],
    drawn: Sequence[PyTree] = (),
) -> dict[str, str | None]:
    """The identity of each function that decides a run (:mod:`linearize.identity`).

    Args:
        given: ``f``, ``loss``, ``readout`` and ``augment``, None where there is none, and the terms
            of penalties.
        params0: θ0.
        batch: a batch before ``augment``, or its shapes.
        regime: in which ``f`` is differentiated.
        trainable: names of the leaves in which it is.
        inputs: the batch's entries that ``f`` is called with.
        drawn: shapes of the batches of the penalties' streams.

    Raises:
        UnidentifiedError: for one of them nothing says what it computes.
    """
    found: dict[str, str | None] = dict.fromkeys(given)
    f: Any = given["f"]
    key = jax.random.key(0)

    def known(name: str, *args: PyTree, derivative: bool = True) -> PyTree:
        """Note a function's identity; what it returns for these arguments."""
        split, arrays = Callables.of({name: given[name]})
        args, arrays = identity.shapes((args, arrays))

        def call(*args: PyTree) -> PyTree:
            *args, arrays = args  # type: ignore[assignment]
            function: Any = split.join(arrays)[name]
            if name == "f":
                tau, params, *args = args  # type: ignore[assignment]
                return REGIMES[regime](function)(params, tau, *args)
            if isinstance(function, Term):
                return function(*args, f=f)
            return function(*args)

        try:
            stated = identity.stated(given[name])
            found[name] = stated or identity.of(call, *args, arrays, derivative=derivative)
        except identity.UnidentifiedError as error:
            raise identity.UnidentifiedError(
                f"{name} cannot be told from another, so a run_dir could answer for a different "
                f"question: {error}. Give it an attribute `fingerprint`, a string that says all "
                "that decides what it computes, or leave run_dir out"
            ) from error
        return jax.eval_shape(call, *args, arrays)

    if given["augment"] is not None:
        augmented = known("augment", key, batch, derivative=False)
        said = str(found["augment"])
        if said.startswith(identity.PROGRAM) and not _names_are_known(given["augment"], key, batch):
            found["augment"] = f"{said} of {', '.join(sorted(augmented))}"
        batch = augmented
    base = tree.flatten(params0)
    tau = jax.eval_shape(lambda: tree.zeros({n: base[n] for n in trainable}))
    outputs = known("f", tau, params0, *(batch[name] for name in inputs))
    if given["loss"] is not None:
        known("loss", outputs, batch)
    elif given["readout"] is not None:
        known("readout", outputs)
    for name, term in given.items():
        if isinstance(term, Term):
            known(name, tau, params0, drawn, key)
    return found


def _names_are_known(augment: Callable, key: Any, batch: PyTree) -> bool:
    """Whether what ``augment`` makes can be called by no other names.

    A program knows the order of its results, and not what each is called.
    """
    known = []

    def look(key: Any, batch: PyTree) -> PyTree:
        made = augment(key, batch)
        lost, added = batch.keys() - made.keys(), made.keys() - batch.keys()
        kept = not lost and all(
            old is new
            for name in batch
            for old, new in zip(
                jax.tree.leaves(batch[name]), jax.tree.leaves(made[name]), strict=False
            )
        )
        known.append(not lost and (not added or (len(added) == 1 and kept)))
        return made

    jax.eval_shape(look, key, batch)
    return all(known)


def current_functions(
    given: Mapping[str, Callable | None],
    params0: Params,
    batch: PyTree,
    inputs: Sequence[str],
    trainable: Sequence[str],
    drawn: Sequence[PyTree] = (),
) -> dict[str, Callable | None]:
    """The functions as they are now (:func:`linearize.current.current`); as :func:`functions`."""
    found = dict(given)

    def known(name: str, *args: PyTree) -> PyTree:
        function: Any = given[name]
        args = identity.shapes(args)
        found[name] = current(function, *args)
        return jax.eval_shape(lambda *args: function(*args), *args)

    if given["augment"] is not None:
        batch = known("augment", jax.random.key(0), batch)
    outputs = known("f", params0, *(batch[name] for name in inputs))
    if given["loss"] is not None:
        known("loss", outputs, batch)
    elif given["readout"] is not None:
        known("readout", outputs)
    base = tree.flatten(params0)
    tau = jax.eval_shape(lambda: tree.zeros({n: base[n] for n in trainable}))
    now: Any = found["f"]
    for name, term in given.items():
        if isinstance(term, Term):
            found[name] = term.now(now, tau, params0, drawn)
    return found


def data_fingerprint(data: feed.Data) -> str:
    """The number of examples and a hash of all their bytes; 1 to 2 s a GB."""
    if isinstance(data, feed.Loader):
        return f"{data.examples} examples, {data.fingerprint}"
    return fingerprint(data)
