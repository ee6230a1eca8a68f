"""From outside, as a frontend: a browser, generated clients, the example app."""
