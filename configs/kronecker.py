"""Presets of ``experiments.kronecker``."""

from configs import compare, shared
from experiments.kronecker.config import KroneckerConfig
from linearize.config import CompareConfig, DataConfig, EditConfig, MapConfig, ModelConfig


def debug() -> KroneckerConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.kronecker debug
    """
    return KroneckerConfig(shared.short(), steps=(5, 10), examples=64, exact=20, probes=(1, 4))


def packaged() -> KroneckerConfig:
    """Four tasks, three blocks, vectors of linear fine-tuning and of TAK, three seeds.

    python -m experiments.kronecker packaged

    At the last step, estimate ÷ exact ‖Jτ‖² over pairs of tasks: 0.27 (linear), 0.07 (TAK) and 0.08
    (TAK on all leaves); Spearman's ρ 0.90 ± 0.13, 0.93 ± 0.15 and 0.82 ± 0.16. About 20 minutes on
    one core.
    """
    setting = CompareConfig(
        model=ModelConfig(blocks=3),
        data=DataConfig(
            tasks=("mnist", "animals", "letters", "scripts"),
            control="landsat",
            train=2000,
            validation=128,
            test=256,
        ),
        nonlinear=compare.recipe(1e-5, steps=56, batch_size=32),
        linear=compare.recipe(4e-5, steps=24, batch_size=32),
        edit=EditConfig(points=11, sweep_test=False),
        map=MapConfig(points=11, n_eval=32),
        baselines=(),
        seeds=(0, 1, 2),
    )
    methods = ("linear", "tak", "tak_all_leaves")
    return KroneckerConfig(setting, methods, steps=(3, 8), probes=(1, 4), exact=16)


PRESETS = {"debug": debug, "packaged": packaged}
