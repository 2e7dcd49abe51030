"""Task analogies of texts: one domain's sentiment from another's, and both domains' text."""
