"""Does fine-tuning behave as a kernel? The NTK along it, and what the NTK predicts of it."""
