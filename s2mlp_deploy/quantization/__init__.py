"""Lower precisions: calibration, accuracy, and the search for layers that must stay in float."""
