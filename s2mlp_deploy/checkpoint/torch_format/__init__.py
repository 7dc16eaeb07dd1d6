"""A reader for the files of torch.save that executes nothing in them: a security boundary.

read.py chooses between the two file formats (archive.py, legacy.py), tensors.py makes tensors of them; unpickler.py
interprets the pickle inside, and training_objects.py lists the only classes that it may name.
"""
