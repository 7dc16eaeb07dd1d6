"""How much faster a sweep is on two workers, and what its driver costs an item."""
