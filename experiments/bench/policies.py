"""What a training step of the papers' image encoders costs under each remat policy; none is run."""

import dataclasses
from typing import Any, Literal

from configs.compare import PAPERS
from configs.compare import PRESETS as COMPARE
from experiments import budget
from experiments.bench.measure import Row
from experiments.bench.workload import FULL, Size
from linearize.config import CompareConfig

CASE = "clip_policies"
PRESETS = tuple(PAPERS)
BATCH = 128
ROOM = 80.0
"""GB of the accelerator that the presets are written for."""
POLICIES: tuple[Literal["none", "dots", "full"], ...] = ("none", "dots", "full")
REGIMES: tuple[budget.Regime, ...] = ("nonlinear", "linear")


def rows(size: Size) -> list[Row]:
    """Operations and compiled memory of both regimes' steps, by preset and policy."""
    whole = size == FULL
    presets = PRESETS if whole else PRESETS[:1]
    out = []
    for preset in presets:
        own = COMPARE[preset]().model.remat
        for policy in POLICIES if whole else POLICIES[:1]:
            for regime in REGIMES:
                blocks = None if whole else size.blocks
                config = of_step(preset, regime, BATCH, remat=policy, blocks=blocks)
                out += _rows(preset, config, regime, chosen=policy == own)
    return out


def of_step(preset: str, regime: budget.Regime, batch: int, **model: Any) -> CompareConfig:
    """A preset with one regime's steps of so many examples, and its model changed."""
    config = COMPARE[preset]()
    recipe = dataclasses.replace(getattr(config, regime), batch_size=batch, accumulate=1)
    changed = dataclasses.replace(config.model, **model)
    return dataclasses.replace(config, model=changed, nonlinear=recipe, linear=recipe)


def _rows(preset: str, config: CompareConfig, regime: budget.Regime, *, chosen: bool) -> list[Row]:
    held, temporary = budget.compiled_bytes(config, regime)
    forward = budget.forward_flops(config)
    what = f"{preset}, {regime}, remat={config.model.remat!r}"
    return [
        Row(
            CASE,
            f"{what}: operations of the gradient",
            budget.step_flops(config, regime) / forward,
            "F",
            note=f"F is {forward / 1e9:.1f} GFLOP an image",
        ),
        Row(
            CASE,
            f"{what}: arguments and temporaries",
            (held + temporary) / 1e9,
            "GB",
            ("<=", ROOM) if chosen else None,
            note=f"{held / 1e9:.1f} GB of θ0, τ, AdamW's state and a batch of {BATCH}, "
            f"{temporary / 1e9:.1f} GB of temporaries, compiled for a CPU, which keeps bfloat16 "
            f"in float32; {budget.kept_bytes(config, regime) / 1e9:.1f} GB kept for the backward "
            "pass, as traced, in bfloat16",
        ),
    ]
