"""The command line, ``bench``: each command in a file that its name finds. Nothing here imports torch by itself."""
