"""What every request passes: tokens, limits, gate, parsing, conditions, logs, metrics."""
