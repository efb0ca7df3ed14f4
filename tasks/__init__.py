"""The downstream tasks, one file each; importing the modules of the package registers them."""
