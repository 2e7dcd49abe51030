"""Makes what a user of the console command brings, here: a small random ViT as a folder of
transformers', and folders of images of two classes, red and blue noise. Needs the wheel alone.
"""

from pathlib import Path

import jax
import numpy as np
from PIL import Image

from linearize import from_linen, models
from linearize.models.hf.configs import VIT_FIELDS
from linearize.models.loading import architecture
from linearize.models.vit import ViT

sizes = {"image_size": 16, "depth": 1, "width": 16, "heads": 2, "hidden": 32, "patch": 8, "grid": 2}
module = ViT(**sizes, **VIT_FIELDS)
pixels = np.zeros((1, 16, 16, 3), np.uint8)
about = {"kind": "vit", "architecture": architecture(module), "image_size": 16}
drawn = from_linen(module, module.init(jax.random.key(0), pixels))
models.export("vit", models.Backbone(*drawn, name="vit", about=about))

rng = np.random.default_rng(0)
for task in ("cars", "dogs", "rest"):
    for channel, name in ((2, "blue"), (0, "red")):
        folder = Path("photos", task, name)
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(40):
            noise = rng.integers(0, 200, (20, 18, 3), dtype=np.uint8)
            noise[..., channel] += 12
            Image.fromarray(noise).save(folder / f"{i}.png")
