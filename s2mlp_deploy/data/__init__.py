"""Images, labels and arrays that users bring: read them, and prepare images as the model expects.

images.py turns a picture into model input (read it first), image_folders.py finds labelled pictures, preprocessing.py
holds the arithmetic, arrays.py and labels.py read the other files.
"""
