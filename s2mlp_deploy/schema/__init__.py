"""What bundles record and everything is judged by: the spec, the manifest, distances and tolerances."""
