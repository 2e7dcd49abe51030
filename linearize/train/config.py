"""What a training run computes, and how it goes about it."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from linearize.fields import Count, Natural, Positive, Seed, check
from linearize.train.mesh import MeshConfig as MeshConfig
from linearize.train.optim import OptimConfig as OptimConfig

_HOW = {"decides_result": False}


@dataclass(frozen=True)
class TrainConfig:
    """One fine-tuning run.

    A run directory belongs to one setting of the fields that decide the result; the fields from
    ``steps_per_call`` on may change when a run is resumed.

    >>> TrainConfig(batch_size=100, accumulate=3)
    Traceback (most recent call last):
    ValueError: accumulate=3 does not divide batch_size=100; choose micro-batches of equal size
    """

    optim: OptimConfig = field(default_factory=OptimConfig)
    steps: Count = 2000
    """Optimizer steps."""
    epochs: Positive | None = None
    """Passes over the data, to the nearest step; where given, it replaces ``steps``."""
    batch_size: Count = 128
    """Examples an optimizer step."""
    accumulate: Count = 1
    """Micro-batches a step; gradients are averaged, memory shrinks."""
    label_smoothing: float = 0.0
    """Share of the uniform distribution in the target of the default loss; refused with another."""
    direction: Literal["descend", "ascend"] = "descend"
    """``"ascend"`` maximises the loss: the gradient-ascent baseline of negation."""
    seed: Seed = 0
    """Of the order of the examples and of ``augment``."""
    save_vectors_at: tuple[Count, ...] = ()
    """Steps after which the task vector so far is kept."""

    steps_per_call: Count = field(default=1, metadata=_HOW)
    """Steps a dispatch, looped on the device; more helps models whose step takes under 1 ms."""
    mesh: MeshConfig | None = field(default=None, metadata=_HOW)
    """Devices to spread over; None is the default device alone, or, of several processes, all."""
    device_bytes: Natural = field(default=2 << 30, metadata=_HOW)
    """Data up to this size lives on the device; larger data is streamed from the host."""
    checkpoint_every: Natural = field(default=500, metadata=_HOW)
    """Steps between checkpoints; 0 writes none but where a run is stopped or diverges."""
    keep: Count = field(default=2, metadata=_HOW)
    """Newest checkpoints to keep while the run goes on."""
    keep_when_done: bool = field(default=False, metadata=_HOW)
    """Whether they stay beside the finished task vector."""
    log_every: Count = field(default=10, metadata=_HOW)
    """Steps between records of the metrics."""
    validate_every: Natural = field(default=0, metadata=_HOW)
    """Steps between calls of ``validation``; 0 calls it once, after the last step."""
    tensorboard: bool = field(default=True, metadata=_HOW)
    """Write TensorBoard files beside the JSON lines."""
    repeat: bool = field(default=False, metadata=_HOW)
    """Train anew where the run directory holds a finished run."""

    def __post_init__(self) -> None:
        check(self)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate={self.accumulate} does not divide batch_size={self.batch_size}; "
                "choose micro-batches of equal size"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing}; expected 0 <= value < 1")

    @classmethod
    def paper(cls) -> "TrainConfig":
        """The papers' recipe: :meth:`OptimConfig.paper`, batch 128, 2,000 steps."""
        return cls(optim=OptimConfig.paper(), steps=2000, batch_size=128)

    def total_steps(self, examples: int) -> int:
        """Optimizer steps of the whole run over a data set of that size.

        Raises:
            ValueError: they leave no room for the warm-up, or end before a vector to be saved.
        """
        total = self.steps
        if self.epochs is not None:
            total = max(1, round(self.epochs * examples / self.batch_size))
        if total <= self.optim.warmup:
            raise ValueError(
                f"optim.warmup={self.optim.warmup} leaves nothing of {total} step(s); shorten it "
                "or train longer"
            )
        outside = [s for s in self.save_vectors_at if not 1 <= s <= total]
        if outside:
            raise ValueError(f"save_vectors_at: {outside} lie outside 1..{total}")
        return total

    def deciding(self) -> dict[str, Any]:
        """The fields that decide the result, by name."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.metadata.get("decides_result", True)
        }
