"""What the parts of a run with prompts are called."""

from collections.abc import Mapping

WAYS = {"prompted": "with a prompt", "plain": "without a prompt"}
NAMES: Mapping[str, str] = {
    "zero_shot": "At θ0",
    "sgd": "Fine-tuning, SGD",
    "adam": "Fine-tuning, Adam",
}
KERNELS = {
    "sgd": "SGD kernel",
    "signgd": "SignGD kernel",
    "asymmetric_signgd": "Asymmetric SignGD kernel",
}
SOLVERS = {
    "least_squares": "least squares",
    "svm": "support vectors",
    "logistic_rows": "logistic regression on rows",
}
VARIANTS = {
    "no_embeddings": "without embeddings",
    "no_head": "without the head",
    "biases": "of biases",
}


def said(method: str) -> str:
    """A method's name as printed.

    >>> said("asymmetric_signgd no_head, least_squares")
    'Asymmetric SignGD kernel without the head, least squares'
    """
    if method in NAMES:
        return NAMES[method]
    kernel, _, solver = method.partition(", ")
    rule, _, variant = kernel.partition(" ")
    return " ".join(filter(None, (KERNELS[rule], VARIANTS.get(variant)))) + f", {SOLVERS[solver]}"
