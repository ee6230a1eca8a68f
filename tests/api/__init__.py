"""What HTTP sees: the views, the document, files."""
