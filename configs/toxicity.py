"""Presets of ``experiments.toxicity``."""

import dataclasses

from configs import compare
from configs.compare import STAND_INS
from experiments.toxicity.config import (
    FITTED,
    ControlConfig,
    DecodingConfig,
    TextsConfig,
    ToxicityConfig,
)
from linearize.config import LanguageModelConfig
from linearize.train import OptimConfig, TrainConfig

LAST_BLOCKS = r"^block_2[2-9]/"
"""Of SmolLM2-135M's 30 blocks the last eight: what two cores can afford."""


def debug() -> ToxicityConfig:
    """Seconds: a small random decoder, made-up words, every part of the job once.

    python -m experiments.toxicity debug
    """
    brief = compare.recipe(3e-3, steps=20, batch_size=16, warmup=2)
    return ToxicityConfig(
        model=LanguageModelConfig(name="toy_decoder", pretrained=False),
        texts=TextsConfig(kinds="toy_shop", positive=("negative",), control="toy_film"),
        scorers=(FITTED,),
        threshold=0.5,
        decoding=DecodingConfig(count=40, tokens=12, prompts="openings", opening=3, batch_size=20),
        control=ControlConfig(context=32, stride=16),
        tolerance=5.0,
        points_of_grid=5,
        points=(0.0, 1.0),
        swept=20,
        length=24,
        nonlinear=brief,
        linear=brief,
        seeds=(0, 1),
    )


def packaged() -> ToxicityConfig:
    """SmolLM2-135M forgets how to write spam: the harmless default, three seeds.

    python -m experiments.toxicity packaged

    Spam and ham of SpamAssassin; prompts are the first 12 tokens of spam that nothing is trained
    on; the scorer is fitted on mail of its own, and right of 85 % of held-out pieces of 40 words.
    The control is a chapter of Jane Austen. The last eight of 30 blocks are trained, on rows of 64
    tokens. Share of spam in what is written, in %: pre-trained 4.9, fine-tuned on it 11.5, negated
    5.2 in the three regimes (α = 0.4), 3.5 with τJp and 4.9 with TAK (α = 1), each with an interval
    of 3 to 8 or as wide. On one busy core 50 minutes a seed; 4 GB.
    """
    return ToxicityConfig(
        texts=TextsConfig(
            train=60,
            validation=400,
            test=200,
            control_train=1,
            control_validation=1,
            control_test=1,
            words="spam",
            other_words="ham",
            control_words="Jane Austen’s novels",
        ),
        scorers=(FITTED,),
        threshold=0.8,
        decoding=DecodingConfig(count=96, tokens=32, prompts="openings"),
        control=ControlConfig(context=256, stride=192),
        swept=32,
        points=(0.0, 0.5, 1.0),
        length=64,
        nonlinear=compare.recipe(1e-4, steps=40, batch_size=8, warmup=4),
        linear=compare.recipe(1e-4, steps=40, batch_size=8, warmup=4),
        regimes=("nonlinear", "posthoc", "linear", "tau_jp_with_control", "tak"),
        trainable=LAST_BLOCKS,
        seeds=(0, 1, 2),
    )


def packaged_toxic() -> ToxicityConfig:
    """SmolLM2-135M forgets profane sentences; prompts are RealToxicityPrompts'. Not for display.

    python -m experiments.toxicity packaged_toxic

    One scorer (a linear SVM over words) chooses the sentences among 100,000 of many sources, two
    others (an LSTM; a logistic model) judge what is written; no text is shown or kept. Share that
    the LSTM calls toxic, in %: pre-trained 3.5, fine-tuned on it 11.8, negated 2.8 (non-linear,
    linear) and 2.4 (post-hoc), of 288 texts each; 95 % intervals of 1 to 6. Over an hour of one
    busy core a seed; 4 GB.
    """
    whole = packaged()
    return dataclasses.replace(
        whole,
        texts=dataclasses.replace(
            whole.texts,
            kinds="sentences",
            positive=(),
            selector="profanity",
            below=0.1,
            prompts="toxic_prompts",
            words="toxic text",
            other_words="other sentences",
        ),
        scorers=("comments", "hate"),
        decoding=dataclasses.replace(whole.decoding, prompts="column"),
        regimes=("nonlinear", "posthoc", "linear"),
    )


def gpt2_large() -> ToxicityConfig:
    """The paper's own: GPT-2 Large, Civil Comments, WikiText-103; wants a GPU and real data.

    python -m experiments.prepare_data civil_comments --data-dir DATA
    python -m experiments.toxicity gpt2_large --texts.data-dir DATA --texts.control WIKITEXT

    WIKITEXT is a folder of WikiText-103 as plain text: ``wiki.train.raw``, ``wiki.valid.raw`` and
    ``wiki.test.raw`` (or ``.tokens``, ``.txt``). Two commands in docs/data.md make it of the Hub's
    tables, as ``wikitext-103-raw`` where they are run, which is read where ``--texts.control`` is
    not given. ``prepare_data toxicity:gpt2_large`` says whether it is there, and does not make it.
    *Editing Models with Task Arithmetic*, table 3,
    share of toxic texts in % / mean score / perplexity, by a classifier that is not packaged:
    pre-trained 4.8 / .06 / 16.4; fine-tuned on toxic text 57 / .56 / 16.6; gradient ascent
    0 / .45 / > 10¹⁰; fine-tuned on non-toxic text 1.8 / .03 / 17.2; random vector 4.8 / .06 / 16.4;
    negated 0.8 / .01 / 16.9. Not run yet; 774 M parameters: float32 θ0, τ and Adam's two moments
    are 12 GB, and five epochs of some 30,000 comments 4,000 steps of 32 rows: hours on one GPU.
    """
    recipe = TrainConfig(
        optim=OptimConfig(lr=1e-5, warmup=200, clip=1.0, weight_decay=0.0),
        epochs=5.0,
        batch_size=32,
    )
    return ToxicityConfig(
        model=LanguageModelConfig(
            name="gpt2_large",
            weights="openai-community/gpt2-large",
            dtype="bfloat16",
            scan=True,
            remat="dots",
        ),
        texts=TextsConfig(
            kinds="civil_comments",
            positive=("toxic",),
            control="wikitext-103-raw",
            words="toxic text",
            other_words="comments that are not toxic",
            control_words="WikiText-103",
        ),
        scorers=("comments", "profanity", "hate"),
        nonlinear=recipe,
        linear=recipe,
        points=(0.0, 0.25, 0.5, 0.75, 1.0),
    )


def gpt2_large_prompts() -> ToxicityConfig:
    """The same, each text after one of RealToxicityPrompts.

    python -m experiments.prepare_data civil_comments real_toxicity_prompts --data-dir DATA
    python -m experiments.toxicity gpt2_large_prompts --texts.data-dir DATA --texts.control WIKITEXT

    Not run yet. WIKITEXT, the paper's table, time and memory are those of :func:`gpt2_large`, whose
    texts follow one fixed prompt.
    """
    whole = gpt2_large()
    return dataclasses.replace(
        whole,
        texts=dataclasses.replace(whole.texts, prompts="real_toxicity_prompts"),
        decoding=dataclasses.replace(whole.decoding, prompts="column"),
    )


def gpt2_debug() -> ToxicityConfig:
    """The paper's protocol on a small random GPT-2 and stand-ins of its data sets.

    python -m experiments.toxicity gpt2_debug

    A rehearsal, whose numbers say nothing: weights that transformers saves, Civil Comments and
    RealToxicityPrompts that TFDS writes, WikiText's files; all of made-up reviews, and every path
    of ``gpt2_large_prompts`` but for the packaged scorers. About two minutes.
    """
    whole, brief = gpt2_large_prompts(), compare.recipe(1e-3, steps=12, batch_size=16, warmup=2)
    return dataclasses.replace(
        whole,
        model=dataclasses.replace(whole.model, name="gpt2", weights=f"{STAND_INS}/gpt2"),
        texts=dataclasses.replace(
            whole.texts, data_dir=f"{STAND_INS}/data", control=f"{STAND_INS}/wikitext"
        ),
        scorers=(FITTED,),
        threshold=0.5,
        decoding=dataclasses.replace(whole.decoding, count=20, tokens=8, batch_size=10),
        control=ControlConfig(context=32, stride=16),
        points_of_grid=3,
        points=(0.0, 1.0),
        swept=10,
        length=24,
        nonlinear=brief,
        linear=brief,
        batch_size=32,
    )


PRESETS = {
    "debug": debug,
    "gpt2_debug": gpt2_debug,
    "gpt2_large": gpt2_large,
    "gpt2_large_prompts": gpt2_large_prompts,
    "packaged": packaged,
    "packaged_toxic": packaged_toxic,
}
