"""τJp: a task vector that other tasks' outputs do not feel (Yoshida et al., ICLR 2025).

*Mastering Task Arithmetic: τJp as a Key Indicator for Weight Disentanglement* lowers, of the
linearized model,

    CE(f0 + Jτ) + λ · mean over the other tasks of E_x ‖J(x) τ‖

with J that of the features before they are normalised, and adds the vectors at α = 1. Its code has
the norm, λ 0.1, 16 examples of each other task a step, AdamW with lr 1e-5, decay 0.1, warm-up 500,
clip 1, batch 128; papers that cite it write the square, which is another penalty with another λ.
It also keeps ImageNet's outputs, and so trains on the control task of negation: here that is a
switch, off by default, and a row that has it on says so.

At τ = 0, where a norm has no gradient, it is 0, as in torch.

Beside B images of the loss, b of other tasks make a step of (5 + 5 b/B)F, F a forward pass of B: a
layer is x W, its tangent x dW + dx W, and that has two transposes. Images that no step has seen
want all five; of those that are ``kept``, x W is known, and the step is (5 + 4 b/B)F. ``in_turn``
makes b that of one task.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from linearize import taylor, tree
from linearize.compiled import jit
from linearize.current import current
from linearize.curvature import Asked
from linearize.examples import as_arguments
from linearize.methods.fine_tuning import bound, fine_tune
from linearize.study import Method, Study
from linearize.train import Penalty, Stream
from linearize.train.penalty import Value
from linearize.types import Apply, Array, Flat, Params, PyTree

WEIGHT, BATCH = 0.1, 16
"""λ, and examples of each other task a step, as in the paper's code."""


def norms(f: Apply, params0: Params, tau: Flat, state: PyTree, key: Array) -> Array:
    """Mean of ‖J(x) τ‖, the papers' code's.

    Args:
        f: the model.
        params0: θ0.
        tau: by name.
        state: of each other task a batch of the model's arguments; or, in their place, functions
            τ ↦ Jτ of examples that stay the same.
        key: not used.
    """
    return _mean(jax.vmap(tree.norm), f, params0, tau, state)


def squares(f: Apply, params0: Params, tau: Flat, state: PyTree, key: Array) -> Array:
    """Mean of ‖J(x) τ‖², as papers write it; its arguments are those of :func:`norms`."""
    return _mean(jax.vmap(lambda moved: tree.dot(moved, moved)), f, params0, tau, state)


def _mean(
    size: Callable[[PyTree], Array], f: Apply, params0: Params, tau: Flat, state: PyTree
) -> Array:
    """Over examples, of which each task has as many."""
    moved = [
        seen(tau) if callable(seen) else _along(f, params0, tau, seen) for seen in _together(state)
    ]
    return jnp.concatenate([size(each) for each in moved]).mean()


def _along(f: Apply, params0: Params, tau: Flat, batch: tuple[PyTree, ...]) -> PyTree:
    return jax.tree.map(lambda y: y[0], taylor.affine_terms(f, params0, [tau], *batch)[1])


def _together(batches: PyTree) -> list[PyTree]:
    """Batches of one shape as one, so that the model is traced once for all tasks."""
    groups: dict[object, list[PyTree]] = {}
    for batch in batches:
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch))
        groups.setdefault(id(batch) if callable(batch) else shapes, []).append(batch)
    return [
        group[0] if len(group) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *group)
        for group in groups.values()
    ]


def keep(
    f: Apply, params0: Params, trainable: tree.Pattern, *inputs: PyTree
) -> Callable[[Flat], PyTree]:
    """τ ↦ J(x) τ of these examples, with the residuals of their pass at θ0, which is so made once.

    Args:
        f: the model.
        params0: θ0.
        trainable: the leaves of τ.
        *inputs: the model's other arguments, arrays (b, ...).

    Returns:
        A ``jax.tree_util.Partial``; of examples of the same shapes two have one structure, so that
        they share compiled programs. Leaves that a τ lacks are 0.
    """
    held = f if isinstance(f, Partial) else Partial(current(f, params0, *inputs))
    zero = tree.zeros(params0, trainable)
    leaves = tuple((name, leaf.shape, leaf.dtype) for name, leaf in zero.items())
    return Partial(_Filled(leaves), _kept(held, params0, zero, *inputs))


@dataclass(frozen=True)
class _Filled:
    """A linear map of leaves of these names, shapes and dtypes, of which some may be absent."""

    leaves: tuple[tuple[str, tuple[int, ...], Any], ...]

    def __call__(self, along: Callable[[Flat], PyTree], tau: Flat) -> PyTree:
        """The map of all of them."""
        return along({n: tau[n] if n in tau else jnp.zeros(*how) for n, *how in self.leaves})


@jit
def _kept(f: Partial, params0: Params, zero: Flat, *inputs: PyTree) -> Callable[[Flat], PyTree]:
    return jax.linearize(lambda tau: taylor.tangent(f)(params0, tau, *inputs), zero)[1]


def of_others(
    study: Study,
    task: str,
    *,
    squared: bool = False,
    in_turn: bool = False,
    control: bool = False,
    kept: bool = False,
    weight: float = WEIGHT,
    batch_size: int = BATCH,
) -> Penalty:
    """The penalty for one task; the switches are those of :func:`tau_jp`.

    Args:
        study: whose tasks.
        task: the one that is trained.
        squared: a switch, as all up to ``kept``.
        in_turn: likewise.
        control: likewise.
        kept: likewise.
        weight: λ.
        batch_size: examples of a task a step.

    Raises:
        ValueError: there is no other task, or no control task where it is asked for; tasks whose
            batches have other shapes, in turn.
    """
    others = study.others(task, "tau_jp", control=control)
    value, masked = squares if squared else norms, _masked(study, others)
    if kept:
        f, params0 = study.model.f, study.model.params
        few = min(len(study.some(name, batch_size, "tau_jp")[0]) for name in others)
        drawn = [_seen(study, name, few, masked) for name in others]
        f = Asked(f) if masked else f
        state = [keep(f, params0, study.trainable, *batch) for batch in _together(drawn)]
        return Penalty("tau_jp", value, weight, state)
    streams = [study.stream(name, batch_size, asked=masked) for name in others]
    if in_turn:
        _check_alike(dict(zip(others, streams, strict=True)))
        sets: list[Any] = [each.data for each in streams]
        streams = [Stream(sets, batch_size, streams[0].roles)]
    return Penalty("tau_jp", partial(_asked, value) if masked else value, weight, streams)


def _masked(study: Study, names: Sequence[str]) -> bool:
    """Whether some outputs of some task are not asked for, such as those of padding."""
    return any(study.asked(name) is not None for name in names)


def _asked(value: Value, f: Apply, params0: Params, tau: Flat, state: PyTree, key: Array) -> Array:
    """A value of batches whose last array says which outputs are asked for."""
    return value(Asked(f), params0, tau, state, key)


def _seen(study: Study, task: str, few: int, masked: bool) -> tuple[PyTree, ...]:
    """Examples that stay the same, with the flags of what is asked of them."""
    seen, flags = study.some(task, few, "tau_jp")
    last = (np.ones(len(seen), bool) if flags is None else flags,)
    return (*as_arguments(seen.inputs), *(last if masked else ()))


def _check_alike(streams: Mapping[str, Stream]) -> None:
    """One program sees the tasks in turn."""
    shapes = {name: str([leaf.shape for leaf in each.batch]) for name, each in streams.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{shape} of {name!r}" for name, shape in shapes.items())
        raise ValueError(
            "tau_jp in turn sees one other task a step, all in one program, and their batches have "
            f"the shapes {told}; take 'tau_jp', which sees all of them each step, or give examples "
            "of one shape"
        )


def tau_jp(
    *,
    squared: bool = False,
    in_turn: bool = False,
    control: bool = False,
    kept: bool = False,
    **how: Any,
) -> Method:
    """A row, whose name and label say which switches are on.

    Args:
        squared: ‖J(x) τ‖² in place of the norm.
        in_turn: one other task a step, in turn, in place of all of them.
        control: the control task's examples too, so that negation's control is trained on.
        kept: the same ``batch_size`` examples of each task every step (fewer of all where one task
            has fewer), whose pass at θ0 is kept: of all leaves that the study trains.
        **how: the other arguments of :func:`of_others`.

    Raises:
        ValueError: ``kept`` and ``in_turn``: what is kept is seen each step.

    >>> tau_jp(squared=True, control=True).label
    'τJp, squared, with control'
    """
    if kept and in_turn:
        raise ValueError("kept=True, in_turn=True: examples that are kept are all seen each step")
    on = {"squared": squared, "in turn": in_turn, "with control": control, "kept": kept}
    words = ["τJp", *(word for word, is_on in on.items() if is_on)]
    name = "_".join(["tau_jp", *words[1:]]).replace(" ", "_")
    penalty = bound(
        of_others,
        squared=squared,
        in_turn=in_turn,
        control=control,
        kept=kept,
        **how,
    )
    train = partial(fine_tune, regime="linear", method=name, penalties=[penalty])
    about = (
        "Linear fine-tuning with a penalty on how far the vector moves the outputs on examples of "
        f"{'one other task a step' if in_turn else 'the other tasks'}"
        f"{' and of the control task' * control}, λ E ‖J(x)τ‖{'²' * squared}"
        f"{', on the same examples each step' * kept} (Yoshida et al., ICLR 2025)."
    )
    return Method(name, ", ".join(words), "tangent", train, controlled=control, about=about)


TAU_JP = tau_jp()
"""As in the paper's code, without the control task."""
VARIANTS = (tau_jp(squared=True), tau_jp(in_turn=True), tau_jp(control=True), tau_jp(kept=True))
"""One switch each."""
