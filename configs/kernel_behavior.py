"""Presets of ``experiments.kernel_behavior``: the kernel along a fine-tuning."""

import dataclasses

from experiments.kernel_behavior.config import (
    FewShotConfig,
    KernelBehaviorConfig,
    PromptConfig,
    ReaderConfig,
)
from linearize.config import HeadConfig, ModelConfig
from linearize.train import OptimConfig, TrainConfig


def recipe(name: str, lr: float, steps: int, batch_size: int) -> TrainConfig:
    """A constant learning rate without decay or clipping, as kernels know it."""
    return TrainConfig(
        optim=OptimConfig(name=name, lr=lr, schedule="constant", clip=None),
        steps=steps,
        batch_size=batch_size,
        checkpoint_every=0,
        tensorboard=False,
    )


def debug() -> KernelBehaviorConfig:
    """Seconds: a small random network, one toy task, two seeds.

    python -m experiments.kernel_behavior debug
    """
    return KernelBehaviorConfig(
        model=ModelConfig(name="mlp", blocks=None, image_size=8, pretrained=False),
        data=FewShotConfig(tasks=("toy_a",), image_size=8, shots=4, validation=40, test=60),
        head=HeadConfig(shots=4),
        sgd=recipe("sgd", 1e-2, steps=12, batch_size=16),
        adam=recipe("adam", 1e-3, steps=12, batch_size=16),
        measured_at=(1, 4),
        points=12,
        l2=(1e-3, 1e-2),
        seeds=(0, 1),
    )


def packaged() -> KernelBehaviorConfig:
    """The packaged ViT on two packaged tasks, 6 examples a class, three seeds.

    python -m experiments.kernel_behavior packaged

    Test accuracy in %, mean of both tasks ± 95 % t interval: pre-trained 50.1 ± 7.7, SGD 52.8 ±
    19.8, Adam 59.3 ± 9.2, the NTK's solution 54.7 ± 5.2. Learning rates were chosen among 3e-6 to
    1e-4 on mnist's validation data, seed 100. About 15 minutes on two cores, on a busy machine.
    """
    return KernelBehaviorConfig(
        model=ModelConfig(blocks=3),
        data=FewShotConfig(tasks=("mnist", "animals"), shots=6, validation=60, test=150),
        head=HeadConfig(shots=6),
        sgd=recipe("sgd", 3e-5, steps=64, batch_size=16),
        adam=recipe("adam", 3e-5, steps=64, batch_size=16),
        measured_at=(1, 4, 16),
        points=40,
        kernels=("ntk",),
        l2=(1e-4, 1e-3, 1e-2),
        seeds=(0, 1, 2),
    )


def prompts_debug() -> PromptConfig:
    """Seconds: a small random BERT, with a prompt and without, on made-up reviews, two seeds.

    python -m experiments.kernel_behavior prompts_debug
    """
    return PromptConfig(
        prompted=ReaderConfig("toy_bert", pretrained=False, blocks=1),
        plain=ReaderConfig("toy_bert", pretrained=False, blocks=1),
        tasks=("toy_food",),
        test=40,
        length=24,
        shots=(4,),
        kernels=("sgd", "signgd", "asymmetric_signgd"),
        variants=("no_embeddings",),
        solvers=("least_squares", "logistic_rows"),
        shares=(1e-2, 1e-1),
        sgd=recipe("sgd", 1e-2, steps=6, batch_size=8),
        adam=recipe("adam", 1e-3, steps=6, batch_size=8),
        points=4,
        seeds=(0, 1),
    )


def prompts() -> PromptConfig:
    """SmolLM2 by label words and MiniLM without a prompt, on seven packaged tasks, three seeds.

    python -m experiments.kernel_behavior prompts

    Kernels and fine-tuning are of the last two blocks of either, with 16 examples a class and at
    most 100 test examples of 64 tokens, for two cores; the other blocks are computed once. Rates
    were chosen on development data of three tasks and another seed: of 1e-3, 3e-3 and 1e-2 for SGD,
    of 1e-5, 1e-4 and 5e-4 for Adam. In %, mean of tasks ± 95 % t interval, with a prompt and
    without: at θ0 58.3 and 70.0 ± 4.5; SGD 74.9 ± 1.3 and 70.0 ± 4.5, its kernel 76.0 ± 6.2 and
    71.4 ± 5.7; Adam 78.5 ± 2.0 and 70.8 ± 7.4, asymmetric SignGD's kernel 77.0 ± 3.5 and
    71.1 ± 5.9. An hour of one core a seed.
    """
    return PromptConfig(
        prompted=ReaderConfig("smollm2_135m", trainable=r"^block_2[89]/"),
        plain=ReaderConfig("minilm_l6", trainable=r"^block_[45]/"),
        tasks=(
            *("sentiment_amazon", "sentiment_imdb", "sentiment_yelp", "sentiment_foods"),
            *("sentiment_film_sentences", "spam", "uncertainty"),
        ),
        test=100,
        length=64,
        shots=(16,),
        kernels=("sgd", "asymmetric_signgd"),
        solvers=("least_squares", "svm", "logistic_rows"),
        sgd=recipe("sgd", 1e-2, steps=50, batch_size=16),
        adam=recipe("adam", 1e-4, steps=50, batch_size=16),
        points=16,
        seeds=(13, 21, 42),
        memory=1 << 32,
    )


def prompts_packaged() -> PromptConfig:
    """The half of ``prompts`` without a prompt: MiniLM on seven packaged tasks, three seeds.

    python -m experiments.kernel_behavior prompts_packaged

    The numbers are those of ``prompts``; a quarter of an hour of one core a seed.
    """
    return dataclasses.replace(prompts(), prompted=None)


def prompts_articles() -> PromptConfig:
    """``prompts`` on articles of five topics and on whole reviews of films, three seeds.

    python -m experiments.kernel_behavior prompts_articles

    Their first 64 tokens, and the models, leaves and rates of ``prompts``. The kernels' cost grows
    as the square of the classes: of news with a prompt 27 minutes of a busy core a seed. No seed
    has been run whole yet.
    """
    return dataclasses.replace(prompts(), tasks=("sentiment_films", "news"), memory=1 << 33)


def klm() -> PromptConfig:
    """The paper's own: RoBERTa-base, its tasks, k = 16 and 64, five seeds.

    python -m experiments.prepare_data kernel_behavior:klm --data-dir DATA
    python -m experiments.kernel_behavior klm --data-dir DATA --texts FOLDER

    TFDS has nine of the tasks; sst5, mr, cr, mpqa and subj are FOLDER/TASK/train.csv and test.csv
    with columns label and text, out of the paper's own download; subj's labels are written as
    subjective and objective, for there are files with either as 0. To expect, with 16 examples a
    class of SST-2: SGD 89.0, its kernel 88.3, Adam 88.3, asymmetric SignGD's kernel 88.3, as the
    paper has it. 125 M parameters, 0.5 GB a copy, beside the 34 GB of derivatives that ``memory``
    allows: a GPU of 80 GB, about an hour a task and seed; not run here.
    """
    return PromptConfig(
        prompted=ReaderConfig("roberta_base", weights="FacebookAI/roberta-base"),
        tasks=(
            *("sst2", "sst5", "mr", "cr", "mpqa", "subj", "trec", "ag_news"),
            *("mnli", "snli", "qnli", "rte", "mrpc", "qqp"),
        ),
        length=None,
        cut="tail",
        solvers=("least_squares", "svm", "logistic_rows"),
        sgd=recipe("sgd", 1e-3, steps=1000, batch_size=8),
        adam=recipe("adam", 1e-5, steps=1000, batch_size=8),
        memory=1 << 35,
    )


PRESETS = {
    "debug": debug,
    "packaged": packaged,
    "prompts_debug": prompts_debug,
    "prompts": prompts,
    "prompts_packaged": prompts_packaged,
    "prompts_articles": prompts_articles,
    "klm": klm,
}
