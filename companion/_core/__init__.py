"""What every room uses: checks of arguments, compiled functions that are kept, Ctrl-C, signatures' words."""
