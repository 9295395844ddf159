"""Other optimizers, plain recipes and ours on the same model file and rows; see ``__main__``."""
