"""Speed and memory: every speed a ratio measured side by side in one run."""
