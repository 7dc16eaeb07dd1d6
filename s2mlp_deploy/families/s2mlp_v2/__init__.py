"""S²-MLPv2 (arXiv 2108.01072): three parts, of which two are shifted, and split attention over them."""
