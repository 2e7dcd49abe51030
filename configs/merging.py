"""Presets of ``experiments.merging``."""

from configs import compare, shared
from experiments.merging.config import MergingConfig
from linearize.config import EditConfig, HeadConfig, ModelConfig

MERGES = (
    *("sum", "mean", "metagpt", "ties", "ties_sum", "dare", "consensus", "tsv_m", "iso_c"),
    *("iso_cts", "wudi", "lines", "knots", "fisher", "regmean", "adamerging"),
    *("optimal", "optimal_experts"),
)


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

    Seed 0, test accuracy in %, all eight merged: pre-trained 58.2; sums 60.0 (non-linear), 58.2
    (linear), 61.3 (τJp); RegMean 63.7, 63.5, 62.1; optimal α by labels 60.5 (linear), 64.6 (τJp),
    by experts 60.2, 62.3. Twelve minutes a seed on one busy core.
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
