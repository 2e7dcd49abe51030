"""Presets of ``experiments.nli``."""

from dataclasses import replace

from configs import compare
from experiments.nli.config import NliConfig, ReadConfig
from linearize.config import EditConfig
from linearize.train import OptimConfig, TrainConfig


def debug() -> NliConfig:
    """Seconds: a small random decoder, three domains of made-up reviews, two seeds.

    python -m experiments.nli debug
    """
    brief = compare.recipe(1e-2, steps=25, batch_size=16, warmup=2)
    return NliConfig(
        model=ReadConfig(name="toy_decoder", read="words", pretrained=False, blocks=1),
        length=24,
        train=120,
        validation=40,
        test=60,
        nonlinear=brief,
        linear=brief,
        edit=EditConfig(points=5),
        coarse=3,
        seeds=(0, 1),
        batch_size=16,
    )


def packaged() -> NliConfig:
    """Five packaged tasks, MiniLM's features under heads of ten examples a class, three seeds.

    python -m experiments.nli packaged

    Sentiment, hedging, spam, topics of articles and of messages. In %, mean of tasks ± 95 % t
    interval: pre-trained 69.0 ± 7.0; each alone 78.6 ± 4.4 (non-linear) and 77.6 ± 2.2 (linear);
    all added 76.4 ± 3.0, 75.4 ± 2.4 (post-hoc) and 75.2 ± 2.2; at α = 1 75.1 ± 5.3, 75.5 ± 3.4 and
    76.0 ± 2.3. Rates are those that add best on validation data. 50 minutes of one core.
    """

    def recipe(lr: float) -> TrainConfig:
        return compare.recipe(lr, steps=40, batch_size=16, warmup=4)

    return NliConfig(
        model=ReadConfig(name="minilm_l6", read="features"),
        tasks=("sentiment_film_sentences", "uncertainty", "spam", "news", "newsgroups"),
        length=40,
        train=800,
        validation=60,
        test=150,
        nonlinear=recipe(1e-4),
        linear=recipe(1e-4),
        coarse=5,
        sample=2,
        seeds=(0, 1, 2),
        batch_size=32,
    )


def packaged_words() -> NliConfig:
    """Such tasks by the word that SmolLM2 says after a prompt. Not run yet.

    python -m experiments.nli packaged_words

    Estimated: five hours of two cores, of which the non-linear regime's sums are half; ``--regimes
    posthoc linear`` leaves them out.
    """
    whole = packaged()
    brief = compare.recipe(2e-5, steps=40, batch_size=16, warmup=4)
    return replace(
        whole,
        model=ReadConfig(name="smollm2_135m", read="words", scan=True, remat="dots"),
        tasks=("sentiment_film_sentences", "uncertainty", "spam", "news", "reuters"),
        length=48,
        nonlinear=brief,
        linear=brief,
        batch_size=16,
    )


GLUE = ("glue_mrpc", "glue_rte", "glue_cola", "glue_sst2")
NLI = ("snli", "mnli", "sick", "qnli", "rte", "scitail")
STAND_INS = f"{compare.STAND_INS}/language"
"""Where ``t5_debug`` has its weights and data, which are made there."""


def glue() -> NliConfig:
    """T5-base on MRPC, RTE, CoLA (Matthews correlation) and SST-2, answers in words. Not run yet.

    python -m experiments.prepare_data glue/mrpc glue/rte glue/cola glue/sst2 --data-dir DATA
    python -m experiments.nli glue --data-dir DATA --donors NAME REPOSITORY

    Expected, *Editing Models with Task Arithmetic*, table 5, on MRPC, RTE, CoLA, SST-2 and on
    average: zero-shot 74.8, 52.7, 8.29, 92.7, 57.1; fine-tuned 88.5, 77.3, 52.3, 94.5, 78.1;
    fine-tuned and one donor 89.3, 77.5, 53.0, 94.7, 78.6. The paper's donors are the Hub's
    fine-tuned T5-base checkpoints; here they are the other three tasks and what ``--donors`` names.
    It does not say how it fine-tunes here: five epochs of AdamW at 1e-4, batch 32, are ours. The
    labels of GLUE's test sets are kept by its hosts: test data are the validation splits, and
    validation data are cut out of training.

    Estimated: 372,000 examples of 128 tokens in the linear regime are 7e16 operations, 20 minutes
    on one H200 in bfloat16; with the non-linear regime and evaluation about an hour, 30 GB.
    """
    model = ReadConfig(name="t5_base", read="answers", weights="google-t5/t5-base")
    recipe = TrainConfig(
        optim=OptimConfig(lr=1e-4, weight_decay=0.0, warmup=100, clip=1.0),
        batch_size=32,
        checkpoint_every=0,
    )
    return replace(_papers(model, recipe, dict.fromkeys(GLUE, 5.0)), coarse=11, batch_size=64)


def nli6() -> NliConfig:
    """Six sets of inference, T5-v1.1-base as a classifier of three labels. Not run yet.

    python -m experiments.prepare_data snli glue/mnli glue/qnli glue/rte sci_tail --data-dir DATA
    python -m experiments.nli nli6 --data-dir DATA

    Expected (third-party notes on the papers' tables), mean accuracy of all six added: non-linear
    42.0, linear 76.0; each alone 85.9. AdamW at 5e-6, decay 0.01, batches of 4 × 32, clipped at 1,
    cosine after 200 steps of warm-up, and 3, 3, 20, 3, 50 and 50 epochs are theirs. The head is
    transformers' (``T5ForSequenceClassification``), drawn by ``model.seed`` and trained with all
    else; sets of two classes have its third label masked. SICK is no set of TFDS: its ``SICK.txt``
    lies in ``DATA/sick``.

    Estimated: 4.5 million examples of 128 tokens in the linear regime are 1.1e18 operations, 1.6
    hours on one H200 in bfloat16, three with the non-linear regime; 25 GB.
    """
    model = ReadConfig(name="t5_v1_1_base", read="classifier", weights="google/t5-v1_1-base")
    recipe = TrainConfig(
        optim=OptimConfig(lr=5e-6, weight_decay=0.01, decay="theta", warmup=200, clip=1.0),
        batch_size=128,
        accumulate=32,
        checkpoint_every=0,
    )
    return _papers(model, recipe, dict(zip(NLI, (3.0, 3.0, 20.0, 3.0, 50.0, 50.0), strict=True)))


def _papers(model: ReadConfig, recipe: TrainConfig, epochs: dict[str, float]) -> NliConfig:
    """One recipe for both regimes on whole sets, for an accelerator."""
    return NliConfig(
        model=replace(model, dtype="bfloat16", scan=True, remat="dots"),
        tasks=tuple(epochs),
        length=128,
        train=None,
        validation=1000,
        test=None,
        nonlinear=recipe,
        linear=recipe,
        epochs=epochs,
        batch_size=128,
    )


def t5_debug() -> NliConfig:
    """A rehearsal of ``glue`` on a small random T5 and stand-in sets, which are made first.

    python -m experiments.nli t5_debug

    Weights as transformers saves them and data as TFDS prepares them, read by what reads the real
    ones; the numbers say nothing of T5. About a minute on two cores.
    """
    whole = glue()
    recipe = compare.recipe(3e-3, steps=40, batch_size=16, warmup=4)
    return replace(
        whole,
        model=replace(whole.model, name="t5", weights=f"{STAND_INS}/t5"),
        data_dir=f"{STAND_INS}/data",
        length=32,
        validation=40,
        test=60,
        nonlinear=recipe,
        linear=recipe,
        epochs={},
        edit=EditConfig(points=5),
        coarse=3,
        batch_size=20,
    )


PRESETS = {
    "debug": debug,
    "packaged": packaged,
    "packaged_words": packaged_words,
    "t5_debug": t5_debug,
    "glue": glue,
    "nli6": nli6,
}
