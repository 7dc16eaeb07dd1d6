"""The cost of training with the shift out of place, beside that of the popular statements."""
