"""Addition of every subset of the task vectors: normalized accuracy by number of tasks."""
