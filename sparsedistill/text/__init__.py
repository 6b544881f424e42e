"""Text to n-grams: buffers, the Unicode table, the readable oracle, the kernels, counting."""
