"""The console's pages, as Jinja templates; `_….html` are parts of pages that are loaded by themselves."""
