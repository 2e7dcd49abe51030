"""Every merge of every method's task vectors, in the method's view, by number of tasks."""
