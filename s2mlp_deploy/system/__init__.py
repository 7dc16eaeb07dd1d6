"""System services independent of networks: files, locks, progress, hashes, limits on untrusted input.

Modules are independent of each other. workdir.py and atomic_write.py are the two ways of writing files here.
"""
