"""What is kept on disk: whole files, fingerprints, a matrix in tiles, paths of kernels, checkpoints."""
