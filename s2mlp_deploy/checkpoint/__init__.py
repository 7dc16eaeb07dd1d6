"""Read checkpoints as data: nothing in a file is ever executed.

load.py makes a Checkpoint of a file (read it first); training_metadata.py finds the recorded image size, preprocessing
and labels. torch_format/ reads the files of torch.save, and is imported by nothing outside this package.
"""
