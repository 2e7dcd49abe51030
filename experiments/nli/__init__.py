"""Addition of task vectors of language tasks: every subset, and one donor for each target."""
