"""What a model writes after prompts: at θ0 + α τ, or in its tangent at θ0."""

from experiments.toxicity.config import DecodingConfig
from experiments.toxicity.material import Material
from linearize.models.language import generate
from linearize.task_vector import TaskVector


def texts(
    given: Material,
    view: str,
    tau: TaskVector,
    alpha: float,
    told: DecodingConfig,
    count: int,
    seed: int,
) -> list[str]:
    """Continuations of the prompts in turn, ``count`` of them, without what ended them.

    The seed and a text's number decide its draws, the same for every model.
    """
    found = generate(
        given.model,
        [given.prompts[i % len(given.prompts)].tolist() for i in range(count)],
        new=told.tokens,
        temperature=told.temperature,
        top_k=told.top_k or None,
        top_p=told.top_p,
        seed=seed,
        ends=[n for n in given.tokenizer.ends if n < given.model.vocabulary],
        batch_size=told.batch_size,
        tau=tau,
        alpha=alpha,
        view=view if alpha else "displaced",  # at θ0 both are the model, and this costs less
    )
    rows = zip(found.tokens, found.lengths - found.finished, strict=True)
    return given.tokenizer.decode([row[:length].tolist() for row, length in rows])
