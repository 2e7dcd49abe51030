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
    """Eighteen merges of four methods' vectors of eight packaged tasks, three seeds, 30 steps each.

    python -m experiments.merging packaged

    Three blocks, whose features classify without normalisation, so that coefficients are certified.
    """
    recipe = compare.recipe(2e-5, steps=30, batch_size=32, warmup=5)
    return shared.analysis(
        MergingConfig,
        compare.packaged8(),
        model=ModelConfig(blocks=3),
        head=HeadConfig(normalize=False),
        nonlinear=recipe,
        linear=recipe,
        methods=("tau_jp",),
        merges=MERGES,
        without=(("nonlinear", "adamerging"),),
        examples=64,
        sizes=(2, 4, 8),
        edit=EditConfig(points=6),
        validation=40,
        test=80,
    )


PRESETS = {"debug": debug, "packaged": packaged, **shared.papers(MergingConfig)}
