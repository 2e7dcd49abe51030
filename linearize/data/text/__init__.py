"""Text as examples: documents to tokens, masks and labels."""
