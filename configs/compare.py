"""Presets of ``experiments.compare``, the three regimes side by side."""

from dataclasses import replace
from typing import Literal

from linearize.config import (
    CompareConfig,
    DataConfig,
    EditConfig,
    ExactConfig,
    HeadConfig,
    MapConfig,
    ModelConfig,
)
from linearize.train import OptimConfig, TrainConfig


def recipe(
    lr: float, steps: int, batch_size: int, warmup: int = 10, clip: float | None = 1.0
) -> TrainConfig:
    """AdamW with warm-up, cosine to 0 and clipping, without decay."""
    return TrainConfig(
        optim=OptimConfig(lr=lr, warmup=warmup, clip=clip, weight_decay=0.0),
        steps=steps,
        batch_size=batch_size,
        checkpoint_every=0,
        tensorboard=False,
    )


def debug() -> CompareConfig:
    """Seconds: a small random network and two toy tasks, every part of the job once.

    python -m experiments.compare debug
    """
    return CompareConfig(
        model=ModelConfig(name="mlp", blocks=None, image_size=14, pretrained=False),
        data=DataConfig(
            tasks=("toy_a", "toy_b"),
            control="toy_e",
            image_size=14,
            train=300,
            validation=60,
            test=80,
        ),
        head=HeadConfig(shots=5),
        nonlinear=recipe(1e-3, steps=20, batch_size=32, warmup=2),
        linear=recipe(1e-3, steps=20, batch_size=32, warmup=2),
        edit=EditConfig(points=5),
        map=MapConfig(pairs=(("toy_a", "toy_b"),), points=7, n_eval=40),
        seeds=(0, 1),
        random_init=True,
    )


def demo() -> CompareConfig:
    """Minutes on two cores: a pretrained ViT, four tasks, τJp beside the regimes, one seed.

    python -m experiments.compare demo

    Seed 0, test accuracy in %, mean over tasks: pre-trained 51.6; single task 76.0 (non-linear),
    78.4 (linear), 74.4 (τJp); all four added at α = 1, without a search, 44.5, 57.5 and 73.2.
    Measured from an empty cache: 4 min 48 s, of which reading 21 s, training 170 s (79 s of it
    τJp's), evaluation 78 s, the map 10 s; on a slower machine's two cores 8 min 16 s. Blocks are
    scanned, which compiles in half the time. The rates were chosen on validation data at 48 steps.
    """
    return CompareConfig(
        model=ModelConfig(scan=True),
        data=DataConfig(
            tasks=("mnist", "animals", "letters", "scripts"),
            control="landsat",
            train=2000,
            validation=128,
            test=256,
        ),
        nonlinear=recipe(1.2e-5, steps=40, batch_size=32),
        linear=recipe(2.4e-5, steps=40, batch_size=32),
        methods=("tau_jp_in_turn",),
        training={"tau_jp_in_turn": recipe(4e-5, steps=40, batch_size=32, clip=None)},
        weights={"tau_jp_in_turn": 0.3},
        edit=EditConfig(points=11, sweep_test=False),
        map=MapConfig(pairs=(("mnist", "letters"),), low=-2.0, high=2.0, points=9, n_eval=32),
        baselines=(),
        batch_size=128,
    )


def packaged8() -> CompareConfig:
    """Eight packaged tasks, three seeds, all baselines, maps from random weights beside.

    python -m experiments.compare packaged8

    Test accuracy in %, mean over tasks ± 95 % t interval over three seeds: pre-trained 61.3 ± 2.2;
    single task 86.7 ± 1.3 (non-linear), 86.0 ± 0.9 (linear); all eight added 64.4 ± 5.7
    (non-linear), 63.3 ± 3.9 (post-hoc), 66.8 ± 4.2 (linear); target after negation 37.7 ± 2.9,
    35.6 ± 5.2, 28.1 ± 9.4. An hour and a quarter on two cores.
    """
    return CompareConfig(
        data=DataConfig(
            tasks=(
                "mnist",
                "fashion_mnist",
                "animals",
                "letters",
                "landsat",
                "signs",
                "digits",
                "scripts",
            ),
            control="emoji",
            train=2000,
            validation=150,
            test=300,
        ),
        nonlinear=recipe(1e-5, steps=100, batch_size=32),
        linear=recipe(2e-5, steps=100, batch_size=32),
        map=MapConfig(
            pairs=(("mnist", "letters"), ("animals", "fashion_mnist")), points=13, n_eval=100
        ),
        seeds=(0, 1, 2),
        random_init=True,
    )


def packaged8_methods() -> CompareConfig:
    """The eight packaged tasks over eight seeds; τJp, TAK, attention-only and merges beside.

    python -m experiments.compare packaged8_methods

    Three seeds of the eight so far, test accuracy in %, mean over tasks ± 95 % t interval: all
    eight added 64.9 ± 3.9 (non-linear), 66.8 ± 4.2 (linear), 73.4 ± 4.5 (τJp), 81.0 ± 1.3 (TAK),
    68.9 ± 2.3 (attention-only), of 86.7, 86.0, 79.6, 84.6 and 87.2 on single tasks. An hour and a
    half a seed, on one busy core.

    The three regimes, their tasks and test examples are those of :func:`packaged8`; the methods
    beside them take 60 steps, there is one pair's map, on 50 examples of a task, and α is tried in
    steps of 0.1 on validation examples. Rates were chosen on validation examples of three tasks and
    another seed: of 4e-5 (100 steps) and 1e-4 (60) for TAK, of 3e-5, 1e-4 and 2.5e-4 for
    attention-only; τJp's rate and λ are the demo's, TAK's λ its code's.
    """
    whole = packaged8()
    return replace(
        whole,
        data=replace(whole.data, validation=100),
        methods=("tau_jp_in_turn", "tak", "attention_only"),
        training={
            "tau_jp_in_turn": recipe(4e-5, steps=60, batch_size=32, clip=None),
            "tak": recipe(1e-4, steps=60, batch_size=32, clip=None),
            "attention_only": recipe(2.5e-4, steps=60, batch_size=32),
        },
        weights={"tau_jp_in_turn": 0.3},
        merges=("tsv_m", "iso_c"),
        edit=EditConfig(points=11, sweep_test=False),
        map=MapConfig(pairs=(("mnist", "letters"),), low=-2.5, high=2.5, points=21, n_eval=50),
        baselines=(),
        seeds=tuple(range(8)),
        batch_size=100,
    )


def exact() -> CompareConfig:
    """AdamW against the optimum of linear fine-tuning: four tasks of 120 examples, three seeds.

    python -m experiments.compare exact

    Mean of the tasks, ± 95 % t interval: loss + (1/2) ‖τ‖² on the training split 0.071 ± 0.005
    (AdamW, 56 steps) and 0.006 ± 0.000 (optimum); test accuracy 64.9 ± 1.4 and 60.1 ± 4.1 %. 27
    minutes of measuring on two busy cores. The map's steps of 0.6 miss −1 and 1: its means in the
    search box are of −0.6, 0 and 0.6.
    """
    return CompareConfig(
        model=ModelConfig(blocks=4),
        data=DataConfig(
            tasks=("mnist", "animals", "fashion_mnist", "scripts"),
            control="landsat",
            train=120,
            validation=128,
            test=256,
        ),
        head=HeadConfig(shots=5, normalize=False),
        nonlinear=recipe(1e-5, steps=56, batch_size=32),
        linear=recipe(2e-5, steps=56, batch_size=32),
        exact=ExactConfig(l2=1.0, solver="dual", batch_size=60),
        edit=EditConfig(points=11),
        map=MapConfig(pairs=(("mnist", "fashion_mnist"),), points=11, n_eval=64),
        baselines=(),
        seeds=(0, 1, 2),
    )


PAPER_TASKS = ("cars", "dtd", "eurosat", "gtsrb", "mnist_full", "resisc45", "sun397", "svhn")
"""The eight tasks of both task-vector papers."""
PAPER_EPOCHS: dict[str, float] = {
    "cars": 35.0,
    "dtd": 76.0,
    "eurosat": 12.0,
    "gtsrb": 11.0,
    "mnist_full": 5.0,
    "resisc45": 15.0,
    "sun397": 14.0,
    "svhn": 4.0,
}
"""Passes over the training examples, about 2,000 steps each, as in the papers' public code."""
SUITE_EPOCHS: dict[str, float] = {
    "cifar100": 6.0,
    "stl10": 60.0,
    "flowers": 147.0,
    "pets": 82.0,
    "pcam": 1.0,
    "fer2013": 10.0,
    "emnist": 2.0,
    "cifar10": 6.0,
    "food101": 4.0,
    "fashion_mnist_full": 5.0,
    "rendered_sst2": 39.0,
    "kmnist": 5.0,
}
"""The same of what the suites of 14 and of 20 tasks add, in their order; STL-10's 60 is that of the
suites' public code, 2,100 steps, where the tangent space's has 6."""
PAPER_PAIRS = (("eurosat", "svhn"), ("dtd", "sun397"), ("cars", "resisc45"))
"""Pairs of tasks whose error maps *Task Arithmetic in the Tangent Space* draws."""


def paper(model: ModelConfig, batch_size: int = 256) -> CompareConfig:
    """The protocol of *Task Arithmetic in the Tangent Space* with one of OpenAI's models."""
    recipe = TrainConfig.paper()
    return CompareConfig(
        model=model,
        data=DataConfig(
            tasks=PAPER_TASKS,
            control="imagenet",
            image_size=model.image_size,
            train=None,
            validation=None,
            test=None,
            workers=16,
        ),
        head=HeadConfig(kind="text"),
        nonlinear=recipe,
        linear=recipe,
        epochs=PAPER_EPOCHS,
        edit=EditConfig(low=0.0, high=1.0, points=21, retained=0.95),
        map=MapConfig(pairs=PAPER_PAIRS, low=-3.0, high=3.0, points=25, n_eval=500),
        baselines=("random", "gradient_ascent"),
        batch_size=batch_size,
    )


def openai(name: str, weights: str, remat: Literal["none", "dots", "full"]) -> ModelConfig:
    """One of OpenAI's image encoders, whole, at the side it was trained at."""
    return ModelConfig(
        name=name,
        weights=weights,
        image_size=224,
        blocks=None,
        dtype="bfloat16",
        scan=True,
        remat=remat,
    )


def vit_b32() -> CompareConfig:
    """The papers' eight tasks with CLIP ViT-B/32; wants a GPU and the real data.

    python -m experiments.prepare_data vit_b32
    python -m experiments.compare vit_b32 --seeds 0 1 2

    ``--methods tau_jp tak`` adds the rows with τJp and TAK, by the linear recipe and their own λ.

    Not run yet. Expected in %, mean over tasks: absolute/normalized accuracy of all eight added,
    target/control after the negation of one.

    =================  =========  =========  =======
    Regime             Added      Negated    Source
    =================  =========  =========  =======
    pre-trained        48.4       48.3/63.4  TAT, TA
    non-linear         71.4/76.5  24.0/60.9  TAT, TA
    post-hoc           57.1/81.9  14.8/60.3  TAT
    linear             76.5/85.4  10.9/60.8  TAT
    linear             74.3/85.0             τJp
    linear             78.8/89.9             TAK
    linear + τJp       84.2/97.2             τJp
    linear + TAK       85.8/97.6  3.4        TAK
    gradient ascent               2.73/0.25  TA
    random vector                 45.7/61.5  TA
    =================  =========  =========  =======

    TA is *Editing Models with Task Arithmetic*; TAT *Task Arithmetic in the Tangent Space*, from
    memory; τJp and TAK reproduce it and add penalties that are not ours, at α = 1. A single
    task's accuracy in reproductions: 90.5 non-linear, 87.3 linear.

    Counted by ``experiments.budget``: 334 PFLOP a seed, 14 minutes at 40 % of an H100's peak in
    bfloat16; a linear step 5.6 TFLOP, 14 ms. Training decodes 6.3 M images meanwhile: 41 minutes
    with 16 workers, so that decoding decides. A step keeps 4.6 GB for the backward pass beside
    1.8 GB of parameters, optimizer and gradient.
    """
    return paper(openai("clip_vit_b32", "openai/clip-vit-base-patch32", "none"))


def vit_b16() -> CompareConfig:
    """The papers' eight tasks with CLIP ViT-B/16; wants a GPU and the real data.

    python -m experiments.prepare_data vit_b16
    python -m experiments.compare vit_b16 --seeds 0 1 2

    ``--methods tau_jp tak`` adds the rows with τJp and TAK, by the linear recipe and their own λ.

    Not run yet. Expected in %, mean over tasks: absolute/normalized accuracy of all eight added,
    target/control after the negation of one.

    =================  =========  =========  =======
    Regime             Added      Negated    Source
    =================  =========  =========  =======
    pre-trained        55.2       55.2/68.3  TAT, TA
    non-linear         75.5/80.0  21.3/65.4  TAT, TA
    post-hoc           65.0/85.2  10.8/64.8  TAT
    linear             81.3/86.0  11.3/64.8  TAT
    linear             78.7/87.6             τJp
    linear             82.0/90.9             TAK
    linear + τJp       87.5/98.4             τJp
    linear + TAK       88.3/97.9  3.4        TAK
    gradient ascent               1.93/0.68  TA
    random vector                 53.1/66.0  TA
    =================  =========  =========  =======

    Sources as of :func:`vit_b32`. Single task: 92.0 non-linear, 89.6 linear.

    Counted: 1,336 PFLOP a seed, 56 minutes, and 41 minutes of decoding meanwhile; a linear step
    22.4 TFLOP, 57 ms, which keeps 20.6 GB beside 1.7 GB.
    """
    return paper(openai("clip_vit_b16", "openai/clip-vit-base-patch16", "none"))


def vit_l14() -> CompareConfig:
    """The papers' eight tasks with CLIP ViT-L/14; wants a GPU of 80 GB and the real data.

    python -m experiments.prepare_data vit_l14
    python -m experiments.compare vit_l14 --seeds 0 1 2

    ``--methods tau_jp tak`` adds the rows with τJp and TAK, by the linear recipe and their own λ.

    Not run yet. Expected in %, mean over tasks: absolute/normalized accuracy of all eight added,
    target/control after the negation of one.

    =================  =========  =========  =======
    Regime             Added      Negated    Source
    =================  =========  =========  =======
    pre-trained        64.4       64.8/75.5  TAT, TA
    non-linear         85.1/88.8  19.0/72.9  TAT, TA
    post-hoc           75.2/90.0  12.1/71.8  TAT
    linear             88.5/93.5  7.9/72.5   TAT
    linear             85.8/92.8             τJp
    linear             88.0/94.8             TAK
    linear + τJp       90.8/99.0             τJp
    linear + TAK       91.6/99.3  3.5        TAK
    gradient ascent               3.93/16.3  TA
    random vector                 60.9/72.9  TA
    =================  =========  =========  =======

    Sources as of :func:`vit_b32`. Single task: 94.1 non-linear, 92.1 linear.

    Counted: 6,212 PFLOP a seed, 4.4 hours; a linear step 104 TFLOP, 0.26 s, which keeps 16.2 GB
    beside 6.1 GB (75.6 GB without ``remat``, 3.3 GB with ``full``, 118 TFLOP).
    """
    return paper(openai("clip_vit_l14", "openai/clip-vit-large-patch14", "dots"), batch_size=128)


PAPERS = {"vit_b32": vit_b32, "vit_b16": vit_b16, "vit_l14": vit_l14}
"""The papers' three models."""


def suite(whole: CompareConfig, size: int) -> CompareConfig:
    """The eight tasks and the next of ``SUITE_EPOCHS``, to ``size`` in all."""
    epochs = {**PAPER_EPOCHS, **SUITE_EPOCHS}
    names = tuple(epochs)[:size]
    return replace(
        whole, data=replace(whole.data, tasks=names), epochs={name: epochs[name] for name in names}
    )


def vit_b32_14() -> CompareConfig:
    """The suite of 14 tasks with CLIP ViT-B/32; wants a GPU and the real data.

    python -m experiments.prepare_data vit_b32_14
    python -m experiments.compare vit_b32_14 --seeds 0 1 2

    ``--methods tau_jp tak --merges ties tsv_m iso_c`` adds what is beside the regimes.

    Not run yet. Expected in %, mean over the tasks, absolute accuracy of all added: individual
    90.9; sum at its best α 65.3, TIES 68.0, TSV-M 80.1, Iso-C 80.3 (non-linear, Iso-C's paper);
    linear 73.7, with τJp 85.3, with TAK 84.3 (TAK's paper).
    """
    return suite(vit_b32(), 14)


def vit_b32_20() -> CompareConfig:
    """The suite of 20 tasks with CLIP ViT-B/32; wants a GPU and the real data.

    python -m experiments.prepare_data vit_b32_20
    python -m experiments.compare vit_b32_20 --seeds 0 1 2

    ``--methods tau_jp tak --merges ties tsv_m iso_c`` adds what is beside the regimes.

    Not run yet. Expected as of :func:`vit_b32_14`: individual 91.3; sum 60.5, TIES 63.4, TSV-M
    77.1, Iso-C 75.5.
    """
    return suite(vit_b32(), 20)


def vit_b16_14() -> CompareConfig:
    """The suite of 14 tasks with CLIP ViT-B/16; wants a GPU and the real data.

    python -m experiments.prepare_data vit_b16_14
    python -m experiments.compare vit_b16_14 --seeds 0 1 2

    ``--methods tau_jp tak --merges ties tsv_m iso_c`` adds what is beside the regimes.

    Not run yet. Expected as of :func:`vit_b32_14`: individual 92.8; sum 70.5, TIES 73.2, TSV-M
    84.6, Iso-C 84.8.
    """
    return suite(vit_b16(), 14)


def vit_b16_20() -> CompareConfig:
    """The suite of 20 tasks with CLIP ViT-B/16; wants a GPU and the real data.

    python -m experiments.prepare_data vit_b16_20
    python -m experiments.compare vit_b16_20 --seeds 0 1 2

    ``--methods tau_jp tak --merges ties tsv_m iso_c`` adds what is beside the regimes.

    Not run yet. Expected as of :func:`vit_b32_14`: individual 93.2; sum 65.8, TIES 68.2, TSV-M
    80.6, Iso-C 79.6.
    """
    return suite(vit_b16(), 20)


def vit_l14_14() -> CompareConfig:
    """The suite of 14 tasks with CLIP ViT-L/14; wants a GPU of 80 GB and the real data.

    python -m experiments.prepare_data vit_l14_14
    python -m experiments.compare vit_l14_14 --seeds 0 1 2

    ``--methods tau_jp tak --merges ties tsv_m iso_c`` adds what is beside the regimes.

    Not run yet. Expected as of :func:`vit_b32_14`: individual 94.3; sum 79.4, TIES 79.5, TSV-M
    89.2, Iso-C 89.3.
    """
    return suite(vit_l14(), 14)


def vit_l14_20() -> CompareConfig:
    """The suite of 20 tasks with CLIP ViT-L/14; wants a GPU of 80 GB and the real data.

    python -m experiments.prepare_data vit_l14_20
    python -m experiments.compare vit_l14_20 --seeds 0 1 2

    ``--methods tau_jp tak --merges ties tsv_m iso_c`` adds what is beside the regimes.

    Not run yet. Expected as of :func:`vit_b32_14`: individual 94.7; sum 74.0, TIES 75.7, TSV-M
    87.7, Iso-C 87.6.
    """
    return suite(vit_l14(), 20)


SUITES = {
    "vit_b32_14": vit_b32_14,
    "vit_b32_20": vit_b32_20,
    "vit_b16_14": vit_b16_14,
    "vit_b16_20": vit_b16_20,
    "vit_l14_14": vit_l14_14,
    "vit_l14_20": vit_l14_20,
}
"""The suites of 14 and 20 tasks, with each of them."""

STAND_INS = "runs/stand_ins"
"""Where ``clip_debug`` has its weights and data, which are made there."""


def clip_debug() -> CompareConfig:
    """Three minutes on two cores: the papers' protocol on a small random CLIP and stand-in data.

    python -m experiments.compare clip_debug

    A rehearsal, whose numbers say nothing of CLIP. Seed 0, test accuracy in %, mean over the tasks:
    pre-trained 12.5; single task 100.0 (non-linear), 87.8 (post-hoc), 96.9 (linear); all three
    added 47.2, 42.5, 48.1. The control task, ImageNet's 1,000 classes, is at chance. Measured:
    2 min 43 s, of a clean clone.
    """
    recipe = TrainConfig(
        optim=OptimConfig(lr=1e-3, weight_decay=0.1, decay="theta", warmup=10, clip=1.0),
        batch_size=64,
        checkpoint_every=0,
        tensorboard=False,
    )
    return CompareConfig(
        model=ModelConfig(
            name="clip",
            weights=f"{STAND_INS}/clip",
            image_size=32,
            blocks=None,
            dtype="bfloat16",
            scan=True,
            remat="dots",
        ),
        data=DataConfig(
            tasks=("eurosat", "svhn", "mnist_full"),
            control="imagenet",
            image_size=32,
            train=None,
            validation=None,
            test=None,
            data_dir=f"{STAND_INS}/data",
            workers=2,
        ),
        head=HeadConfig(kind="text"),
        nonlinear=recipe,
        linear=recipe,
        epochs={"eurosat": 12.0, "svhn": 10.0, "mnist_full": 10.0},
        edit=EditConfig(points=6),
        map=MapConfig(pairs=(("eurosat", "svhn"),), points=7, n_eval=40),
        baselines=("random", "gradient_ascent"),
    )


PRESETS = {
    "debug": debug,
    "demo": demo,
    "exact": exact,
    "packaged8": packaged8,
    "packaged8_methods": packaged8_methods,
    "clip_debug": clip_debug,
    **PAPERS,
    **SUITES,
}
