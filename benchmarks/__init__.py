"""Scripts that measure promptsearch; each writes JSON that says on which machine, model, data and seed."""
