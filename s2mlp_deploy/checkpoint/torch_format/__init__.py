"""A reader for the files of torch.save that executes nothing in them: a security boundary.

archive.py reads the two file formats, unpickler.py the pickle inside, training_objects.py lists the only classes that a pickle may name.
"""
