"""Presets of ``experiments.kernel_behavior``: the kernel along a fine-tuning."""

from experiments.kernel_behavior.config import FewShotConfig, KernelBehaviorConfig
from linearize.config import HeadConfig, ModelConfig
from linearize.train import OptimConfig, TrainConfig


def recipe(name: str, lr: float, steps: int, batch_size: int) -> TrainConfig:
    """A constant learning rate without decay or clipping, as kernels know it."""
    return TrainConfig(
        optim=OptimConfig(name=name, lr=lr, schedule="constant", clip=None),
        steps=steps,
        batch_size=batch_size,
        checkpoint_every=0,
        tensorboard=False,
    )


def debug() -> KernelBehaviorConfig:
    """Seconds: a small random network, one toy task, two seeds.

    python -m experiments.kernel_behavior debug
    """
    return KernelBehaviorConfig(
        model=ModelConfig(name="mlp", blocks=None, image_size=8, pretrained=False),
        data=FewShotConfig(tasks=("toy_a",), image_size=8, shots=4, validation=40, test=60),
        head=HeadConfig(shots=4),
        sgd=recipe("sgd", 1e-2, steps=12, batch_size=16),
        adam=recipe("adam", 1e-3, steps=12, batch_size=16),
        measured_at=(1, 4),
        points=12,
        l2=(1e-3, 1e-2),
        seeds=(0, 1),
    )


def packaged() -> KernelBehaviorConfig:
    """The packaged ViT on two packaged tasks, 6 examples a class, three seeds.

    python -m experiments.kernel_behavior packaged

    Test accuracy in %, mean of both tasks ± 95 % t interval: pre-trained 50.1 ± 7.7, SGD 52.8 ±
    19.8, Adam 59.3 ± 9.2, the NTK's solution 54.7 ± 5.2. Learning rates were chosen among 3e-6 to
    1e-4 on mnist's validation data, seed 100. About 15 minutes on two cores, on a busy machine.
    """
    return KernelBehaviorConfig(
        model=ModelConfig(blocks=3),
        data=FewShotConfig(tasks=("mnist", "animals"), shots=6, validation=60, test=150),
        head=HeadConfig(shots=6),
        sgd=recipe("sgd", 3e-5, steps=64, batch_size=16),
        adam=recipe("adam", 3e-5, steps=64, batch_size=16),
        measured_at=(1, 4, 16),
        points=40,
        kernels=("ntk",),
        l2=(1e-4, 1e-3, 1e-2),
        seeds=(0, 1, 2),
    )


PRESETS = {
    "debug": debug,
    "packaged": packaged,
}
