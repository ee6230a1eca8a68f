"""Tasks that repeat: the language of rules, the days that fit them, and what follows an occurrence. Pure."""
