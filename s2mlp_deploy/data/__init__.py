"""Images, labels and arrays, read and prepared."""
