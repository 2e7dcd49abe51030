"""The three regimes of *Task Arithmetic in the Tangent Space* (§3, §5)."""

from functools import partial

from linearize.methods.fine_tuning import fine_tune
from linearize.study import Method

NONLINEAR = Method(
    "nonlinear",
    "Non-linear",
    "displaced",
    partial(fine_tune, regime="nonlinear"),
    about="The model itself, fine-tuned, and evaluated at θ0 + Σ α τ.",
)
"""Fine-tuning of f itself."""

POSTHOC = Method(
    "posthoc",
    "Post-hoc linearized",
    "tangent",
    of=NONLINEAR,
    about="Task vectors of non-linear fine-tuning, put into the model’s first-order Taylor "
    "expansion around θ0.",
)
"""The non-linear task vectors, evaluated in the tangent space (eq. 4)."""

LINEAR = Method(
    "linear",
    "Linear",
    "tangent",
    partial(fine_tune, regime="linear"),
    about="That expansion itself fine-tuned: f(θ0) + J(θ0) τ, affine in τ.",
)
"""Fine-tuning of the linearized model."""


def posthoc(method: Method) -> Method:
    """A method's vectors, evaluated in the tangent space of θ0."""
    return Method(
        f"{method.name}_posthoc",
        f"{method.label}, post-hoc",
        "tangent",
        of=method,
        about=f"The task vectors of {method.label}, put into the model’s first-order Taylor "
        "expansion around θ0.",
    )
