"""Who is who: extraction of ids, the rules, resolution against a plain reference, the store behind it."""
