"""What any program needs of the machine: files, locks, progress, hashes, limits on what is untrusted."""
