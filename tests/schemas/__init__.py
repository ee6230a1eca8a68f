"""Shapes of requests and answers, and the dialects in which frontends say them."""
