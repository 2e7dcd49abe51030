"""Kernel classifiers by name: the recipe of *A kernel-based view of language model fine-tuning*.

(Malladi et al. 2023, §5 and the solvers of their code: least squares and support vector regression
on one-hot targets less f0, one kernel per output; support vector and logistic classification.) A
row of :data:`SOLVERS` takes a kernel, labels and f0, and gives a :class:`Dual`, whose
:func:`linearize.ntk.regression.predict` are logits (M, C): the largest wins; of one, its sign.

Which kernel a row is sound for:

    least_squares, logistic   any: shared (N, N), diagonal (N, N, C), full (N, N, C, C), whose
                              outputs interact
    asymmetric_least_squares  likewise, and no symmetry, such as asymmetric SignGD's
    svm, svr                  shared or diagonal: one machine per output, no interaction
    logistic_rows             shared; its rows are features, and no symmetry is asked for

Departures from their code. The f0 scale here multiplies f0, theirs divides it. Their "logistic" is
``logistic_rows`` here, a logistic regression on the kernel's rows as features; ``logistic`` is the
kernel method, softmax over all outputs with the penalty ‖τ‖², to its certified optimum. Their
asymmetric solution solves the transposed system of the one that predicts; here it is the same.
"""

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from linearize.choices import one_of
from linearize.ntk import checks
from linearize.ntk.dual import cross_entropy
from linearize.ntk.layout import from_columns, product, to_blocks, to_columns
from linearize.ntk.provenance import traced_outputs, warn_of_trace
from linearize.ntk.regression import Dual, regression

Solver = Callable[..., Dual]
"""``solver(kernel, f0 (N, C), labels (N,), f0_scale=..., **options) -> Dual``."""


def fit(
    kernel: ArrayLike,
    labels: ArrayLike,
    solver: str = "least_squares",
    f0: ArrayLike | None = None,
    f0_scale: float = 1.0,
    **options: Any,
) -> Dual:
    """Fit a classifier on a kernel by a named method.

    Args:
        kernel: K(X, X); which layouts are sound depends on the row, see above. Of several outputs
            the shared one is ``output="mean"``: a trace, C times as much, regularises C times less
            and gives a :class:`linearize.ntk.provenance.TraceKernelWarning`.
        labels: (N,) integers in 0, ..., C − 1; 0 or 1 where C = 1.
        solver: a row of :data:`SOLVERS`.
        f0: outputs at θ0 on X, (N, C); ``None`` for none, and prediction wants none either.
        f0_scale: s, the scale with which f0 is added.
        **options: the row's own: ``ridge``, and ``share``, a ridge in units of the kernel's
            operator norm, as theirs (both of least squares); ``l2``, ``tolerance``,
            ``max_iterations`` (logistic); ``C``, ``tol``, ``max_iter`` (svm), ``epsilon`` too
            (svr), and ``C`` (logistic_rows), which are scikit-learn's.

    Returns:
        The solution. C is that of f0, else of the kernel, else the largest label + 1.

    Raises:
        ValueError: an unknown solver; what the row refuses.
        ImportError: scikit-learn is absent, and the row needs it.

    >>> from linearize.ntk.regression import predict
    >>> found = fit(np.eye(3), labels=[0, 1, 1])
    >>> predict(found, np.eye(3)).argmax(1)
    array([0, 1, 1])
    """
    one_of("solver", solver, SOLVERS)
    warn_of_trace(kernel, *_regularisation(solver, options))
    square = (_any_square if solver in ANY_SQUARE else checks.square_kernel)(kernel)
    if f0 is None:
        known = np.asarray(labels)
        if known.dtype.kind not in "iub":
            checks.class_labels(known, len(square), 2)  # says what is expected
        classes = square.shape[-1] if square.ndim > 2 else int(known.max(initial=0)) + 1
        f0, f0_scale = np.zeros((len(square), classes)), 0.0
    found = SOLVERS[solver](square, f0, labels, f0_scale=f0_scale, **options)
    return replace(found, traced=traced_outputs(kernel))


def _regularisation(solver: str, options: Mapping[str, Any]) -> tuple[str, float]:
    """Name and value of what a row regularises by, as given or by default."""
    parameters = inspect.signature(SOLVERS[solver]).parameters
    name = next(n for n in ("ridge", "l2", "C") if n in parameters)
    return name, options.get(name, parameters[name].default) or 0.0


def least_squares(
    kernel: ArrayLike,
    f0: ArrayLike,
    labels: ArrayLike,
    f0_scale: float = 1.0,
    ridge: float = 0.0,
    share: float = 0.0,
) -> Dual:
    """Kernel regression on one-hot targets; on −1 and 1 where there is one output.

    Args:
        kernel: K(X, X) of any layout.
        f0: (N, C).
        labels: (N,).
        f0_scale: s.
        ridge: as in :func:`linearize.ntk.regression.regression`.
        share: of the kernel's operator norm ‖K‖, added to the ridge: λ of λ‖K‖.
    """
    return regression(kernel, f0, _targets(f0, labels), _ridge(kernel, ridge, share), f0_scale)


def _ridge(kernel: ArrayLike, ridge: float, share: float) -> float:
    """What is added to the diagonal in all."""
    more = checks.nonnegative("share", share) * operator_norm(kernel)
    return checks.nonnegative("ridge", ridge) + more


def asymmetric_least_squares(
    kernel: ArrayLike,
    f0: ArrayLike,
    labels: ArrayLike,
    f0_scale: float = 1.0,
    ridge: float = 0.0,
    share: float = 0.0,
) -> Dual:
    """(K + ridge I) c = s f0 − y of a kernel that need not be symmetric, by least squares.

    Of asymmetric SignGD's K(x, x') = ⟨∇f(x), sign ∇f(x')⟩ it is the limit of steps along signs
    that were taken once: τ = −Σ sign(∇f(x_n)) c_n.

    Args:
        kernel: K(X, X) of any layout, its second axis that of the coefficients.
        f0: as all that follow, as in :func:`least_squares`.
        labels: likewise.
        f0_scale: likewise.
        ridge: likewise.
        share: likewise.

    Returns:
        The solution of least norm; the gradient's norm is NaN, for there is no objective.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, a negative ridge or share.
    """
    square = _any_square(kernel)
    blocks = to_blocks(square)
    more = _ridge(square, ridge, share)
    outputs = square.shape[-1] if square.ndim > 2 else None
    initial = checks.outputs_like("f0", f0, len(square), outputs)
    start = f0_scale * initial - _targets(f0, labels)
    columns = to_columns(start, square.ndim)
    solved = [
        np.linalg.lstsq(block + more * np.eye(len(block)), column)[0]
        for block, column in zip(blocks, columns, strict=True)
    ]
    found = from_columns(np.stack(solved), square.ndim, start.shape[1])
    left = product(square)(found) + more * found - start
    return Dual(found, f0_scale, np.array(0.5 * np.sum(left**2)), np.array(np.nan))


def logistic_rows(
    kernel: ArrayLike,
    f0: ArrayLike,
    labels: ArrayLike,
    f0_scale: float = 1.0,
    C: float | None = None,
) -> Dual:
    """Logistic regression whose features of an example are its row of the kernel.

    Their default solver. It is no kernel method: the penalty is on the rows' weights, and f0 has no
    place in it.

    Args:
        kernel: K(X, X), (N, N) or (N, N, 1).
        f0: (N, C), of which the shape counts.
        labels: (N,).
        f0_scale: 0.
        C: inverse weight of the penalty; by default, as theirs, ``LogisticRegressionCV`` chooses
            it, by five folds or as many as a class has examples.

    Raises:
        ValueError: f0 is to be added; a kernel of several outputs; a class of too few examples.
    """
    if f0_scale != 0:
        raise ValueError(
            f"f0_scale={f0_scale} with solver='logistic_rows': rows of the kernel are all its "
            "features; leave f0 out, or take solver='logistic'"
        )
    square = _any_square(kernel)
    if square.ndim > 2 and square.shape[2:] != (1,) * (square.ndim - 2):
        raise ValueError(
            f"kernel has shape {square.shape}: solver='logistic_rows' takes one kernel (N, N)"
        )
    rows = square.reshape(square.shape[:2])
    outputs = checks.widen("f0", f0).shape[1]
    known = checks.class_labels(labels, len(rows), max(outputs, 2))
    linear = _sklearn("linear_model")
    fewest = int(np.bincount(known, minlength=max(outputs, 2)).min())
    if fewest < (2 if C is None else 1):
        raise ValueError(
            f"labels gives a class {fewest} examples; solver='logistic_rows' wants two of each to "
            "choose C, or C= and one of each"
        )
    machine = (
        linear.LogisticRegressionCV(cv=min(5, fewest), max_iter=10_000, random_state=0)
        if C is None
        else linear.LogisticRegression(C=C, max_iter=10_000)
    )
    with warnings.catch_warnings():  # scikit-learn announces other defaults of its next version
        warnings.simplefilter("ignore", FutureWarning)
        machine.fit(rows, known)
    weights, bias = machine.coef_.T, machine.intercept_
    if outputs > 1 and weights.shape[1] == 1:  # of two classes it has the second's alone
        weights, bias = weights * [-0.5, 0.5], bias * [-0.5, 0.5]
    nothing = np.array(np.nan)
    return Dual(-weights, 0.0, nothing, nothing, bias)


def operator_norm(kernel: ArrayLike) -> float:
    """The largest singular value of a kernel of any layout.

    >>> operator_norm(np.diag([1.0, 3.0]))
    3.0
    """
    return float(np.linalg.norm(to_blocks(_any_square(kernel)), 2, axis=(-2, -1)).max())


def logistic(
    kernel: ArrayLike,
    f0: ArrayLike,
    labels: ArrayLike,
    f0_scale: float = 1.0,
    l2: float = 1e-4,
    **options: Any,
) -> Dual:
    """:func:`linearize.ntk.dual.cross_entropy`, with its options."""
    return cross_entropy(kernel, f0, labels, l2, f0_scale, **options)


def svm(
    kernel: ArrayLike,
    f0: ArrayLike,
    labels: ArrayLike,
    f0_scale: float = 1.0,
    C: float = 1.0,
    **options: Any,
) -> Dual:
    """Support vector classification, each class against the rest (``sklearn.svm.SVC``).

    The hinge loss has no place for an offset f0: it must be left out.

    Args:
        kernel: K(X, X), shared or diagonal.
        f0: (N, C), of which the shape counts.
        labels: (N,), with at least one example in and one outside each class.
        f0_scale: 0.
        C: of the loss, a sum over examples, against ½ ‖τ_c‖².
        **options: ``tol``, ``max_iter``.

    Raises:
        ValueError: f0 is to be added; a full kernel; a class with all or none of the examples.
    """
    if f0_scale != 0:
        raise ValueError(
            f"f0_scale={f0_scale} with solver='svm': the hinge loss has no offset; leave f0 out, "
            "or take solver='svr'"
        )
    targets = _targets(f0, labels)
    counts = (targets > 0).sum(0)
    bad = np.flatnonzero((counts == 0) | (counts == len(targets)))
    if len(bad):
        raise ValueError(
            f"labels gives output {int(bad[0])} {int(counts[bad[0]])} of {len(targets)} examples; "
            "solver='svm' separates each class from the rest: drop the class, or take another "
            "solver"
        )
    svc = _sklearn("svm").SVC
    return _machines(kernel, targets > 0, 0.0, lambda: svc(kernel="precomputed", C=C, **options))


def svr(
    kernel: ArrayLike,
    f0: ArrayLike,
    labels: ArrayLike,
    f0_scale: float = 1.0,
    C: float = 1.0,
    epsilon: float = 0.1,
    **options: Any,
) -> Dual:
    """Support vector regression of one-hot targets − s f0, output by output (``sklearn.svm.SVR``).

    Args:
        kernel: K(X, X), shared or diagonal.
        f0: (N, C).
        labels: (N,).
        f0_scale: s.
        C: of the loss, a sum over examples, against ½ ‖τ_c‖².
        epsilon: errors up to this are free.
        **options: ``tol``, ``max_iter``.

    Raises:
        ValueError: a full kernel.
    """
    machine = _sklearn("svm").SVR
    targets = _targets(f0, labels) - f0_scale * np.asarray(f0, np.float64)
    return _machines(
        kernel,
        targets,
        f0_scale,
        lambda: machine(kernel="precomputed", C=C, epsilon=epsilon, **options),
    )


SOLVERS: Mapping[str, Solver] = {
    "least_squares": least_squares,
    "asymmetric_least_squares": asymmetric_least_squares,
    "logistic": logistic,
    "logistic_rows": logistic_rows,
    "svm": svm,
    "svr": svr,
}
"""Rows: name -> method."""

ANY_SQUARE = ("asymmetric_least_squares", "logistic_rows")
"""Rows that ask for no symmetry."""


def _any_square(kernel: ArrayLike) -> np.ndarray:
    """A kernel of one set of inputs with itself, finite, float64; symmetric or not."""
    wide = checks.widen("kernel", kernel)
    ends = set(wide.shape[2:])
    if wide.ndim not in (2, 3, 4) or wide.shape[0] != wide.shape[1] or len(ends) > 1:
        raise ValueError(
            f"kernel has shape {wide.shape}; expected {checks.LAYOUTS} with N1 = N2 and C1 = C2: "
            "the kernel of the training inputs with themselves"
        )
    return wide


def _targets(f0: ArrayLike, labels: ArrayLike) -> np.ndarray:
    initial = checks.widen("f0", f0)
    examples, outputs = checks.outputs_like("f0", initial, len(initial), None).shape
    known = checks.class_labels(labels, examples, max(outputs, 2))
    return np.eye(outputs)[known] if outputs > 1 else 2.0 * known[:, None] - 1


def _machines(
    kernel: ArrayLike, targets: np.ndarray, f0_scale: float, make: Callable[[], Any]
) -> Dual:
    """One machine per output; c = −(dual coefficients of the support vectors)."""
    square = checks.square_kernel(kernel, targets.shape[1])
    if square.ndim == 4:
        raise ValueError(
            f"kernel has shape {square.shape}: support vector machines have one kernel per "
            "output; give the diagonal (N, N, C) or a shared kernel (N, N)"
        )
    if len(targets) != len(square):
        raise ValueError(
            f"labels has {len(targets)} examples but kernel has shape {square.shape}; give one "
            "label for each of its rows"
        )
    checks.check_semidefinite(square)
    blocks = to_blocks(square)
    c, intercept = np.zeros(targets.shape), np.zeros(targets.shape[1])
    for k in range(targets.shape[1]):
        machine = make().fit(blocks[k % len(blocks)], targets[:, k])
        c[machine.support_, k] = -machine.dual_coef_[0]
        intercept[k] = machine.intercept_[0]
    nothing = np.array(np.nan)
    return Dual(c, f0_scale, nothing, nothing, intercept)


def _sklearn(module: str) -> ModuleType:
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError(
            'this solver needs scikit-learn: pip install "linearize[kernel]"'
        ) from error
