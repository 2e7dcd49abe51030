"""Presets of ``experiments.trajectory``."""

from configs import shared
from experiments.trajectory.config import TrajectoryConfig


def debug() -> TrajectoryConfig:
    """Seconds: a small random network and three toy tasks.

    python -m experiments.trajectory debug
    """
    return TrajectoryConfig(shared.short(), steps=(5, 10))


def packaged() -> TrajectoryConfig:
    """The demo's four tasks, vectors after 7, 14, 28, 42 and 56 steps, three seeds.

    python -m experiments.trajectory packaged

    After half of the steps the cosine to the final vector is 0.974 ± 0.004 (non-linear) and
    0.972 ± 0.003 (linear), accuracy after addition 57.5 ± 1.6 and 59.9 ± 5.0 %, at the
    end 58.2 ± 1.7 and 62.3 ± 1.1 %. 44 minutes on two cores, on a busy machine.
    """
    return TrajectoryConfig(shared.four(), steps=(7, 14, 28, 42))


def vit_b32() -> TrajectoryConfig:
    """The papers' eight tasks with CLIP ViT-B/32, vectors after 250 to 2,000 steps.

    python -m experiments.prepare_data vit_b32
    python -m experiments.trajectory vit_b32 --setting.seeds 0 1 2

    Not run yet. Fine-tuning costs what it does in ``experiments.compare vit_b32``.
    """
    return TrajectoryConfig(shared.paper(), steps=(250, 500, 1000, 1500))


PRESETS = {"debug": debug, "packaged": packaged, "vit_b32": vit_b32}
