"""Files with tasks, out and in; `entries.py` says what of a file is stored."""
