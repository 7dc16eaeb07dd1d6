"""Changes of a graph, one a module, and the check that a change kept what it had to."""
