"""What every room uses: checks, seeds, precision, processes, files, checkpoints."""
