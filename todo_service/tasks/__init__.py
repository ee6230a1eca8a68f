"""What tasks are and do: the session comes first, whose owner is in every statement. No HTTP in it."""
