"""Presets of ``experiments.merging``."""

from configs import compare, shared
from experiments.merging.config import MergingConfig
from linearize import merge
from linearize.config import EditConfig, HeadConfig, ModelConfig

_UNMEASURED = "newer than the run whose page is committed, which is of the others"
LEFT_OUT = {
    "random": "a baseline of negation, which is not measured here",
    "dare_ties": "DARE and TIES are there",
    "adamerging_tensors": "its steps differentiate through the model, at each number of tasks anew",
    "consensus_tasks": _UNMEASURED,
    "optimal_tensors": _UNMEASURED,
    "optimal_tensors_experts": _UNMEASURED,
}
"""Rows of :data:`linearize.merge.MERGES` that are not measured unless ``merges`` names them, and
why; every other one is, in the views that it is for."""

MERGES = tuple(name for name in merge.MERGES if name not in LEFT_OUT)


def debug() -> MergingConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.merging debug
    """
    return shared.analysis(
        MergingConfig,
        shared.small(),
        regimes=("nonlinear", "linear"),
        methods=("tau_jp",),
        merges=("sum", "ties", "tsv_m", "fisher", "optimal_experts"),
        without=(("tau_jp", "fisher"),),
        sizes=(2, 3),
        examples=40,
    )


def packaged() -> MergingConfig:
    """Eighteen merges of three methods' vectors of eight packaged tasks, three seeds.

    python -m experiments.merging packaged

    Two blocks, of which the attention is trained, 30 steps each; heads that do not normalise, so
    that coefficients are certified. Rates and λ are not tuned.

    Test accuracy in %, all eight merged, ± 95 % t interval over three seeds: pre-trained 59.6 ±
    5.0; sums 60.2 ± 6.1 (non-linear), 60.4 ± 5.3 (linear), 63.4 ± 5.6 (τJp), and without a search
    44.3 ± 2.4, 36.6 ± 11.6, 60.5 ± 2.2; RegMean 63.8 ± 2.9, 63.3 ± 2.7, 63.3 ± 2.7; optimal α by
    labels 61.6 ± 2.7 (linear), 65.8 ± 3.5 (τJp). Twelve minutes a seed on one busy core.
    """
    recipe = compare.recipe(1e-4, steps=30, batch_size=32, warmup=5)
    return shared.analysis(
        MergingConfig,
        compare.packaged8(),
        model=ModelConfig(blocks=2),
        head=HeadConfig(normalize=False),
        nonlinear=recipe,
        linear=recipe,
        trainable="attention/",
        regimes=("nonlinear", "linear"),
        methods=("tau_jp",),
        merges=MERGES,
        without=(("nonlinear", "adamerging"),),
        examples=64,
        sizes=(2, 4, 8),
        edit=EditConfig(points=11),
        validation=32,
        test=64,
    )


PRESETS = {"debug": debug, "packaged": packaged, **shared.papers(MergingConfig, merges=MERGES)}
