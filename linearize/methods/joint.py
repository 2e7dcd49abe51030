"""Joint multi-task training, the upper baseline of addition: one model, each task its own head."""

from dataclasses import replace

from linearize.edit import joint_examples, joint_loss
from linearize.examples import Examples
from linearize.methods.fine_tuning import check_smoothing, recipe_of, run, smoothed
from linearize.methods.regimes import NONLINEAR
from linearize.study import Method, Study
from linearize.task_vector import TaskVector


def fine_tune_jointly(study: Study, name: str) -> TaskVector:
    """One non-linear fine-tuning on all tasks' examples, by the study's recipe for this method.

    Where it has none, by that of non-linear fine-tuning, for as many steps as the tasks took apart.
    """
    splits = {task: study.split(task, "train") for task in study.names}
    recipe = study.recipes.get(name)
    if recipe is None:
        recipes = {task: recipe_of(study, task, "nonlinear") for task in study.names}
        steps = sum(recipes[task].total_steps(len(split)) for task, split in splits.items())
        recipe = replace(recipes[study.names[0]], steps=steps, epochs=None)
    check_smoothing(study, recipe)
    joined = joint_examples(list(splits.values()))
    examples = Examples(joined.pop("inputs"), joined)
    smoothing = recipe.label_smoothing
    return run(
        study,
        examples.arrays(),
        recipe,
        (name,),
        {"task": name},
        regime="nonlinear",
        inputs=examples.arguments,
        loss=joint_loss([smoothed(study.objectives[task], smoothing) for task in study.names]),
    ).tau


JOINT = Method(
    "joint",
    "Joint training",
    "displaced",
    fine_tune_jointly,
    of=NONLINEAR,
    stands="addition",
    about="One non-linear fine-tuning on all tasks’ examples, beside which sums of vectors stand.",
)
"""One vector for all tasks; normalized by non-linear single-task values."""
