"""The registered pretraining methods, one file each."""
