"""The definition language: text to tree and back, with errors that say where and what would be right."""
