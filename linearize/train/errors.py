"""What can stop a run, each with what to do next."""

from linearize.task_vector import TaskVector


class RunDirectoryError(RuntimeError):
    """A run directory cannot be read or written: read-only, full, or not a directory.

    ``vector`` is the task vector so far, where training had begun.
    """

    def __init__(self, message: str, vector: TaskVector | None = None) -> None:
        super().__init__(message)
        self.vector = vector


class RunLockedError(RunDirectoryError):
    """Another process works in the run directory."""


class RunMismatchError(RunDirectoryError):
    """The run directory holds a run of another config, function, base model, data or head."""


class CheckpointError(RunDirectoryError):
    """A checkpoint could not be written; those before it are untouched."""


class NonFiniteLossError(ArithmeticError):
    """Loss, gradient or τ became NaN or infinite.

    ``step`` counts from 1; ``loss``, ``lr`` and ``grad_norm`` are those of that step. ``tau`` is
    the last finite one. The message says whether the data or θ0's own outputs are to blame.
    """

    def __init__(
        self,
        step: int,
        loss: float,
        lr: float,
        grad_norm: float,
        tau: TaskVector,
        kept: str,
        cause: str = "",
    ) -> None:
        super().__init__(
            f"training stopped: step {step} is not finite (loss {loss:.6g}, learning rate "
            f"{lr:.6g}, gradient norm {grad_norm:.6g}); "
            f"{cause or 'lower optim.lr or set optim.clip'}. {kept}"
        )
        self.step, self.loss, self.lr, self.grad_norm, self.tau = step, loss, lr, grad_norm, tau
