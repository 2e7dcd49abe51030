"""The page of ``experiments.learning_rate``."""

from experiments import curves
from experiments.learning_rate.results import Results
from linearize.report.page import Page, shows


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    lead = (
        f"{len(results.tasks)} tasks fine-tuned at several learning rates, "
        f"{results.model_name}: accuracy of each task's own model, and of all task vectors "
        "added with the α that validation data choose."
    )
    return curves.page(results, "Effect of the learning rate", lead, "Learning rate", log=True)
