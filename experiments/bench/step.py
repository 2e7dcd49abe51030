"""The linearized training step beside the ordinary one: operations, time, compiled memory."""

import dataclasses

from experiments.bench import measure
from experiments.bench.measure import Goal, Row
from experiments.bench.workload import Size, Step, forward, train_step, workload
from linearize.cost import count_flops
from linearize.train.mesh import Placement

CASE = "step"
REMAT_CASE = "remat"


def operations(step: Step) -> int:
    """Floating-point operations of one whole step, optimizer included."""
    place = Placement.make(None)
    return count_flops(
        lambda state, fixed, batch: step.recipe.step(state, fixed, batch, place),
        *step.arguments(),
    )


def rows(size: Size) -> list[Row]:
    """Operations in forward passes, and the ratio of times, with the blocks as they come."""
    made = workload(size)
    f, args = forward(made)
    unit = count_flops(f, *args)
    linear, ordinary = train_step(made, "linear"), train_step(made, "nonlinear")
    times = measure.in_turns(linear, ordinary, size.repeats)
    note = "matrix products of the jaxpr, in forward passes"
    return [
        Row(
            CASE,
            "operations of a linearized step",
            operations(linear) / unit,
            "F",
            ("<=", 5.1),
            note=note,
        ),
        Row(CASE, "operations of an ordinary step", operations(ordinary) / unit, "F", note=note),
        Row(
            CASE,
            "time, linearized / ordinary",
            times.ratio,
            "x",
            ("<=", 1.7),
            times.spread,
            f"{times.medians[0]:.3f} s / {times.medians[1]:.3f} s; ViT of {size.blocks} blocks, "
            f"{size.image_size} px, batch {size.batch}; AdamW on all parameters",
        ),
    ]


def remat_rows(size: Size) -> list[Row]:
    """Compiled temporaries with scanned, rematerialised blocks against the ordinary step's.

    The ordinary step keeps everything; of its plain and its scanned form the smaller counts.
    """
    goals: dict[str, Goal | None] = {"none": None, "dots": ("<=", 1.1), "full": ("<=", 1.1)}
    out = []
    for image_size in dict.fromkeys((size.image_size, size.large_image_size)):
        here = dataclasses.replace(size, image_size=image_size)
        ordinary = min(
            train_step(workload(here, scan=scan), "nonlinear").temporaries()
            for scan in (False, True)
        )
        for remat, goal in goals.items():
            made = workload(here, scan=True, remat=remat)
            f, args = forward(made)
            step = train_step(made, "linear")
            memory = step.temporaries()
            out.append(
                Row(
                    REMAT_CASE,
                    f"compiled memory, linearized with remat={remat!r} / ordinary, {image_size} px",
                    memory / ordinary,
                    "x",
                    goal,
                    note=f"{memory / 1e6:.0f} MB / {ordinary / 1e6:.0f} MB of temporaries; "
                    f"{operations(step) / count_flops(f, *args):.2f} F",
                )
            )
    return out
