"""What tasks are and do: order, recurrence, retention, and the statements themselves."""
