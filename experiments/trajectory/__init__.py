"""Task vectors along training: their cosine to the final one, and what they merge to."""
