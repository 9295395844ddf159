"""Example data packaged with promptsearch (see README.md in this folder)."""
