"""Joint multi-task training, the upper baseline of addition: one model, each task its own head."""

from dataclasses import replace

from linearize.edit import joint_examples, joint_loss
from linearize.methods.fine_tuning import run
from linearize.methods.regimes import NONLINEAR
from linearize.study import Method, Study
from linearize.task_vector import TaskVector
from linearize.train import TrainConfig


def fine_tune_jointly(study: Study, name: str) -> TaskVector:
    """One non-linear fine-tuning on all tasks' examples, for as many steps as they took apart."""
    recipe: TrainConfig = study.recipe("nonlinear", TrainConfig())
    return run(
        study,
        joint_examples([study.split(task, "train") for task in study.names]),
        replace(recipe, steps=recipe.steps * len(study.names)),
        (name,),
        {"task": name},
        regime="nonlinear",
        loss=joint_loss([study.objectives[task] for task in study.names]),
    ).tau


JOINT = Method(
    "joint", "Joint training", "displaced", fine_tune_jointly, of=NONLINEAR, stands="addition"
)
"""One vector for all tasks; normalized by non-linear single-task values."""
