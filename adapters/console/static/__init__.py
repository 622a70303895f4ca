"""What browsers load beside the pages: the stylesheet, and htmx 2.0.11 as published (its licence beside it)."""
