"""Task analogies on images: sub-populations, and classes that were never trained on."""
