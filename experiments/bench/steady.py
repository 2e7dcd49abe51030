"""Nothing is compiled and nothing crosses to the host once training or evaluation is under way."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import numpy as np

from experiments.bench.measure import Row
from experiments.bench.workload import CLASSES, OPTIM, Size, train_step, workload
from linearize import evaluate, train
from linearize.models import heads

CASE = "steady"
STEPS = 6


@contextmanager
def compilations() -> Iterator[Counter[str]]:
    """Counts the programs that XLA compiles meanwhile, by name, such as ``jit(step)``."""
    counts: Counter[str] = Counter()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if message.startswith("Finished XLA compilation of "):
                counts[message.split(" of ", 1)[1].split(" in ", 1)[0]] += 1

    logger = logging.getLogger("jax._src.dispatch")
    handler, level, propagate = Handler(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield counts
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def transfers(program: Callable[[], object], calls: int) -> int:
    """In how many of the calls something crosses between host and device, even on request."""
    crossed = 0
    for _ in range(calls):
        try:
            with jax.transfer_guard("disallow_explicit"):
                jax.block_until_ready(program())
        except RuntimeError as error:
            if "transfer" not in str(error):
                raise
            crossed += 1
    return crossed


def rows(size: Size) -> list[Row]:
    """Compilations of the training and the evaluation, and transfers within a step."""
    made = workload(size)
    rng = np.random.default_rng(0)
    n = 3 * size.batch + 1
    shape = (n, size.image_size, size.image_size, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    labels = rng.integers(0, CLASSES, n, dtype=np.int32)
    readout = jax.tree_util.Partial(heads.apply_head, made.head)
    config = train.TrainConfig(
        optim=OPTIM, steps=STEPS, batch_size=size.batch, log_every=2, checkpoint_every=0
    )
    with compilations() as training:
        train.fine_tune(
            made.backbone.f,
            made.backbone.params,
            {"inputs": images, "labels": labels},
            regime="linear",
            readout=readout,
            config=config,
            progress=False,
        )
    with compilations() as evaluation:
        evaluate.outputs(made.backbone.f, made.backbone.params, images, batch_size=size.batch)
    with compilations() as again:
        evaluate.outputs(made.backbone.f, made.backbone.params, images, batch_size=size.batch)
    step = train_step(made, "linear")
    jax.block_until_ready(step())
    with compilations() as running:
        crossed = transfers(step, STEPS)
    once = sum(v for k, v in training.items() if k in ("jit(step)", "jit(steps)"))
    largest = max(evaluation.values(), default=0)
    return [
        Row(
            CASE,
            f"compilations of the step in fine_tune, {STEPS} steps",
            once,
            goal=("==", 1),
            note="over epochs, logging and a last batch that wraps round",
        ),
        Row(
            CASE,
            "compilations of the evaluation, 4 batches, the last padded",
            largest,
            goal=("==", 2),
            note="the batch's, and the one example's that it is checked by; the most of any one "
            "program: " + ", ".join(sorted(evaluation)),
        ),
        Row(
            CASE,
            "compilations when the evaluation is repeated",
            sum(again.values()),
            goal=("==", 0),
        ),
        Row(
            CASE,
            f"compilations in {STEPS} further steps",
            sum(running.values()),
            goal=("==", 0),
        ),
        Row(
            CASE,
            f"steps with a host transfer, of {STEPS}",
            crossed,
            goal=("==", 0),
            note="under jax.transfer_guard: no copy to the device, not even on request (copies "
            "back, which a CPU does not report, cannot happen within one compiled program)",
        ),
    ]
