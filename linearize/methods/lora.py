"""LoRA, and LoRA linearized: low-rank factors of ΔW are trained, and ΔW is the task vector.

Hu et al. 2021 (arXiv 2106.09685); Tang et al. 2023, *Parameter Efficient Multi-task Model Fusion
with Partial Linearization* (arXiv 2310.04742), whose code has r = 16 and α = 32. Its list of
modules misspells the value's projection, so that it adapts the query's alone, and it drops a tenth
of the adapters' inputs: neither is done here.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, wraps
from typing import Any, Literal

import numpy as np

from linearize import hosts, tree
from linearize.current import current
from linearize.methods.fine_tuning import fine_tune, kept, of_task, within
from linearize.methods.regimes import posthoc
from linearize.models import Backbone, Model, WeightsError, export_adapter
from linearize.models.lora import A, Adapter, B, OfDelta, adapted
from linearize.study import Method, Study
from linearize.task_vector import TaskVector
from linearize.train import Penalty

log = logging.getLogger(__name__)

MOVING: dict[str, tuple[str, ...]] = {"nonlinear": (A, B), "linear": (B,)}
"""The factors that are trained: where B is 0, f has no derivative in A."""


def train_adapter(
    study: Study,
    task: str,
    *,
    regime: Literal["nonlinear", "linear"],
    method: str,
    rank: int = 16,
    alpha: float = 32.0,
    pattern: tree.Pattern = "kernel$",
    penalties: Sequence[Penalty | Callable[[Study, str], Penalty]] = (),
    weight: float | None = None,
    recipe: str | None = None,
) -> tuple[Adapter, TaskVector]:
    """One task's factors, and ΔW; a run that is finished is reused.

    Penalties are of ΔW and of the model at θ0, as those of other methods are of τ; so L-LoRA with
    τJp is a row:

        Method("l_lora_tau_jp", "L-LoRA, τJp", "tangent", partial(fine_tune_adapter,
            regime="linear", method="l_lora_tau_jp", penalties=[tau_jp.of_others]))

    What they hold still is felt where a vector is evaluated in the tangent space. Of LoRA itself,
    which moves in f, a penalty of J holds no more than the first order.

    Factors are kept below ``adapters/`` in the study's store, as any fine-tuning is, and ΔW in the
    method's own folder, as any task vector is; beside it, in ``peft/``, the adapter as PEFT's files
    have it, where the model is one of transformers.

    Args:
        study: of the model, the data and the objective.
        task: whose training examples are used.
        regime: what is differentiated, in A and B: f, or f_lin at B = 0.
        method: whose recipe is taken, or else that of ``regime``.
        rank: as that of :meth:`linearize.models.Adapter.start`, which the study's seed draws.
        alpha: likewise.
        pattern: likewise, among the leaves that the study trains.
        penalties: what is added to the loss, as :func:`linearize.methods.fine_tuning.fine_tune`
            takes them, of this study.
        weight: likewise.
        recipe: the method whose recipe is taken where the study has none for ``method``.

    Raises:
        ValueError: as there.
    """
    model = study.model
    found_by = within(study, pattern)
    start = Adapter.start(model.params, rank=rank, alpha=alpha, pattern=found_by, seed=study.seed)
    flat = tree.flatten(model.params)
    passed = [n for n in tree.select(flat, found_by) if n not in start.a and np.ndim(flat[n]) > 1]
    if passed:
        log.warning(
            "%s of %s: %s stay at θ0, as they are no matrices", method, task, ", ".join(passed)
        )
    f = current(model.f, model.params, *study.split(task, "train").alone)
    lora = adapted(f, model.params, start.scale)
    inner = study.but(
        model=Model(lora, start.joined(model.params)),
        objectives=study.objectives,
        trainable=[f"/{factor}$" for factor in MOVING[regime]],
        store=study.store.under("adapters"),
    )
    terms = [
        replace(each, value=OfDelta(each.value, lora.func))
        for each in of_task(penalties, study, task)
    ]
    how: dict[str, Any] = {"regime": regime, "method": method, "recipe": recipe}
    found = fine_tune(inner, task, penalties=terms, weight=weight, **how)
    adapter = start.moved(found.delta)
    tau = kept(study, (method, task), adapter.task_vector(model.params, found.meta))
    folder = study.store.path(method, task, "peft")
    if folder is not None and isinstance(model, Backbone) and model.kind and hosts.first():
        try:
            export_adapter(folder, model, adapter)
        except WeightsError as error:
            log.warning("%s of %s: no files for PEFT: %s", method, task, error)
    return adapter, tau


@wraps(train_adapter, assigned=())
def fine_tune_adapter(study: Study, task: str, **how: Any) -> TaskVector:
    """ΔW of :func:`train_adapter`."""
    return train_adapter(study, task, **how)[1]


LORA = Method(
    "lora",
    "LoRA",
    "displaced",
    partial(fine_tune_adapter, regime="nonlinear", method="lora"),
    about="Fine-tuning of low-rank factors beside the kernels; their product is the task vector "
    "(Hu et al. 2021).",
)
"""Fine-tuning of low-rank factors of every kernel that is a matrix."""

L_LORA = Method(
    "l_lora",
    "L-LoRA",
    "tangent",
    partial(fine_tune_adapter, regime="linear", method="l_lora"),
    about="Fine-tuning of low-rank factors in the model linearized in them: one of the two moves "
    "(Tang et al. 2023).",
)
"""Fine-tuning of the model linearized in the factors, at B = 0: J ΔW with ΔW = s A0 B."""

LORA_POSTHOC = posthoc(LORA)
