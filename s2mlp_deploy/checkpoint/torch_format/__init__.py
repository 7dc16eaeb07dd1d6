"""torch's file formats, read as data: a security boundary."""
