"""Effect of the learning rate on single-task and on merged accuracy."""
