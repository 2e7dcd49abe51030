"""The main job: three regimes of task arithmetic side by side, from a preset to a report."""
